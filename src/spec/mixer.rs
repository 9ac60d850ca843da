//! Token mixers: attention of all kinds, and the parts that take its place.

use super::linear::{Linear, Norm};
use super::rope::Rope;
use super::weight::TensorSpec;
use crate::vocabulary::Span;

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Qkv<W = TensorSpec> {
    Separate {
        q: Linear<W>,
        k: Linear<W>,
        v: Linear<W>,
    },
    /// Keys are also the values, before norm and rotary embedding (Gemma 4).
    KeyIsValue {
        q: Linear<W>,
        k: Linear<W>,
    },
    /// Queries attend to the keys and values of layer `from`, as they are after its norms and
    /// rotary embedding (Gemma 4).
    Borrowed {
        q: Linear<W>,
        from: usize,
    },
    /// One projection whose outputs are, for each key head, its queries, its key and its value.
    /// With one key head these are all q, then k, then v.
    Grouped(Linear<W>),
    /// One projection whose outputs are all q, then all k, then all v.
    Fused(Linear<W>),
    /// Queries, keys and values are computed from vectors of a lower rank (DeepSeek-V2's multi-head
    /// latent attention).
    Latent(Box<Latent<W>>),
}

/// Multi-head latent attention, DeepSeek-AI 2024. A head of q and k consists of a part without
/// positions and a part that is rotated. All heads of k share the latter.
#[derive(Clone, Debug)]
pub struct Latent<W = TensorSpec> {
    pub query: LatentQuery<W>,
    /// A projection to the latent of keys and values, followed by the rotated part of k.
    pub kv_down: Linear<W>,
    pub kv_norm: Norm<W>,
    /// A projection from the latent to each head's part of k without positions, and its value.
    pub kv_up: Linear<W>,
    /// Size of the part without positions.
    pub nope_dim: usize,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum LatentQuery<W = TensorSpec> {
    Direct(Linear<W>),
    Low { down: Linear<W>, norm: Norm<W>, up: Linear<W> },
}

/// Norms of queries and keys.
#[derive(Clone, Debug)]
pub struct QkNorm<W = TensorSpec> {
    pub q: HeadNorm<W>,
    /// None if keys are borrowed.
    pub k: Option<HeadNorm<W>>,
    /// True if the norms come after the rotary embedding (HunYuan, Llama 4).
    pub after_rope: bool,
}

/// A norm of the heads of a projection.
#[derive(Clone, Debug)]
pub enum HeadNorm<W = TensorSpec> {
    /// Each head by itself. The weight is [head_dim] for all heads, or [heads, head_dim].
    Each(Norm<W>),
    /// As `Each`, with the weight of each head [head_dim] in a tensor of its own (StableLM 2 12B).
    Own(Vec<Norm<W>>),
    /// All heads together, [heads * head_dim] (OLMoE, OLMo 2).
    Together(Norm<W>),
    /// Each head by itself, x / rms(x) without a weight (Llama 4).
    Unweighted { eps: f64 },
}

/// Linear biases of scores in place of an embedding of positions (Press et al. 2022): slope *
/// position of the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Alibi {
    /// The slopes of the biases, [heads], which are added to q·k after the factor.
    pub slopes: Vec<f32>,
    /// If present, slopes, positions and their products are rounded to bf16, and then multiplied
    /// with this (Falcon).
    pub rounded: Option<f32>,
}

/// A factor of queries that grows with their position: 1 + beta * ln(1 + floor((position + offset)
/// / original)) (Llama 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryGrowth {
    pub beta: f64,
    pub original: f64,
    pub offset: usize,
}

/// The factor of the heads' outputs before the output projection.
#[derive(Clone, Debug)]
pub enum Gate<W = TensorSpec> {
    /// The sigmoid of the second half of each head of the query projection (Qwen3-Next).
    InQuery,
    /// The sigmoid of a projection of the mixer's input (AFMoE).
    Own(Linear<W>),
}

#[derive(Clone, Debug)]
pub struct Attention<W = TensorSpec> {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Size of a head's value.
    pub value_dim: usize,
    pub qkv: Qkv<W>,
    pub out: Linear<W>,
    pub qk_norm: Option<QkNorm<W>>,
    /// The epsilon of an RMS norm without a weight of each head's value (Gemma 4).
    pub value_norm: Option<f64>,
    /// If present, q, k and v are clamped to [-clip, clip] (OLMoE's `clip_qkv`).
    pub clip: Option<f64>,
    pub rope: Option<Rope>,
    pub growth: Option<QueryGrowth>,
    pub span: Span,
    /// A logit per head that takes part in the softmax and is then dropped (gpt-oss), [heads].
    pub sinks: Option<W>,
    /// The factor of q·k.
    pub scale: f64,
    /// If present, cap * tanh(score / cap) replaces a score (Gemma 2).
    pub softcap: Option<f64>,
    pub alibi: Option<Alibi>,
    pub gate: Option<Gate<W>>,
}

impl Attention {
    /// Plain grouped-query attention. Callers change the fields in which they differ.
    pub fn new((heads, kv_heads, head_dim): (usize, usize, usize), qkv: Qkv, out: Linear) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            value_dim: head_dim,
            qkv,
            out,
            qk_norm: None,
            value_norm: None,
            clip: None,
            rope: None,
            growth: None,
            span: Span::All,
            sinks: None,
            scale: (head_dim as f64).powf(-0.5),
            softcap: None,
            alibi: None,
            gate: None,
        }
    }
}

/// Gated DeltaNet (linear attention of Qwen3-Next), after Yang et al. 2024.
#[derive(Clone, Debug)]
pub struct DeltaNet<W = TensorSpec> {
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub inputs: DeltaInputs<W>,
    /// A depthwise causal convolution over the channels of q, k and v, [channels, 1, kernel].
    pub conv: W,
    pub a_log: W,
    pub dt_bias: W,
    pub norm: Norm<W>,
    pub out: Linear<W>,
}

/// The input projections of a DeltaNet.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum DeltaInputs<W = TensorSpec> {
    /// Grouped by key head (Qwen3-Next).
    Grouped {
        /// The outputs are q, k, the value heads of the group, and their gates z.
        qkvz: Linear<W>,
        /// The outputs are b, then a, with one number per value head of the group.
        ba: Linear<W>,
    },
    /// All q, k and v in one projection, and z, b and a in one each (Qwen3.5).
    Separate { qkv: Linear<W>, z: Linear<W>, b: Linear<W>, a: Linear<W> },
}

/// A short convolution between two gates (LFM2).
#[derive(Clone, Debug)]
pub struct GatedConv<W = TensorSpec> {
    /// A projection to the gate before the convolution, the gate after it, and its input, each of
    /// the hidden size.
    pub input: Linear<W>,
    /// A depthwise causal convolution, [hidden, 1, kernel].
    pub conv: W,
    pub conv_bias: Option<W>,
    pub out: Linear<W>,
}

/// Mamba-2, Dao and Gu 2024: each head has a state [head_dim, state] that decays and is added to at
/// every position.
#[derive(Clone, Debug)]
pub struct Mamba2<W = TensorSpec> {
    pub heads: usize,
    pub head_dim: usize,
    /// Number of groups of heads that share B and C.
    pub groups: usize,
    pub state: usize,
    /// A projection to the gate, x, B of all groups, C of all groups, and the step of each head.
    pub input: Linear<W>,
    /// A depthwise causal convolution over x, B and C, [channels, 1, kernel].
    pub conv: W,
    pub conv_bias: Option<W>,
    pub dt_bias: W,
    pub a_log: W,
    /// The factor of x in the output, [heads].
    pub d: W,
    /// A norm over each group of the gated output, [heads * head_dim].
    pub norm: Norm<W>,
    pub out: Linear<W>,
    /// The smallest step.
    pub min_step: f64,
}

#[derive(Clone, Debug)]
pub enum Mixer<W = TensorSpec> {
    Attention(Box<Attention<W>>),
    DeltaNet(Box<DeltaNet<W>>),
    GatedConv(Box<GatedConv<W>>),
    Mamba2(Box<Mamba2<W>>),
}
