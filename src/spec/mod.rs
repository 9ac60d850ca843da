//! A model as data: what each decoder layer computes, and from which tensors of the checkpoint.
//!
//! The files of `arch/` make a `ModelSpec` from a `config.json`; the executor runs any of them. Names are those of the whole
//! model in transformers, prefixes included, whatever a checkpoint calls them (`naming.rs`). Shapes are [out, in] for
//! projections unless said otherwise.

pub mod arch;
pub mod config;
pub mod inventory;
mod keys;
pub mod mxfp4;
pub mod naming;
pub mod quantised;
pub mod rope;
mod rope_config;
#[cfg(test)]
mod rope_spellings;

use crate::vocabulary::{Activation, NormKind, Order};
use rope::Rope;

/// The head's weight, under the name that all architectures have for it.
pub const HEAD: &str = "lm_head.weight";

/// A tensor of the checkpoint and the shape it must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
}

impl Tensor {
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }
}

#[derive(Clone, Debug)]
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub order: Order,
}

impl Linear {
    /// `{name}.weight` [out, in] and, if `bias`, `{name}.bias` [out].
    pub fn new(name: &str, out: usize, input: usize, bias: bool) -> Self {
        Self {
            weight: Tensor::new(format!("{name}.weight"), [out, input]),
            bias: bias.then(|| Tensor::new(format!("{name}.bias"), [out])),
            order: Order::OutIn,
        }
    }

    /// As `new`, stored [in, out].
    pub fn transposed(name: &str, out: usize, input: usize, bias: bool) -> Self {
        let mut linear = Self::new(name, out, input, bias);
        linear.weight.shape = vec![input, out];
        linear.order = Order::InOut;
        linear
    }
}

#[derive(Clone, Debug)]
pub struct Norm {
    pub kind: NormKind,
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub eps: f64,
}

impl Norm {
    /// `{name}.weight` and, for a LayerNorm, `{name}.bias`, both [size].
    pub fn new(kind: NormKind, name: &str, size: usize, eps: f64) -> Self {
        Self {
            kind,
            weight: Tensor::new(format!("{name}.weight"), [size]),
            bias: (kind == NormKind::Layer).then(|| Tensor::new(format!("{name}.bias"), [size])),
            eps,
        }
    }
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Qkv {
    Separate {
        q: Linear,
        k: Linear,
        v: Linear,
    },
    /// One projection whose outputs are all q, then all k, then all v.
    Fused(Linear),
}

/// Query and key norms, before the rotary embedding.
#[derive(Clone, Debug)]
pub struct QkNorm {
    pub q: Norm,
    pub k: Norm,
    /// Over each head by itself, or over the whole projection (OLMoE).
    pub per_head: bool,
}

#[derive(Clone, Debug)]
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub qkv: Qkv,
    pub out: Linear,
    pub qk_norm: Option<QkNorm>,
    /// q, k and v are clamped to [-clip, clip] (OLMoE's `clip_qkv`).
    pub clip: Option<f64>,
    pub rope: Option<Rope>,
    /// A query sees at most this many keys, itself included.
    pub window: Option<usize>,
    /// Per-head logit that takes part in the softmax and is then dropped (gpt-oss), [heads].
    pub sinks: Option<Tensor>,
    /// Factor on q·k.
    pub scale: f64,
    /// q_proj holds, per head, the query and then a gate of the same size: out *= sigmoid(gate) (Qwen3-Next).
    pub gated: bool,
}

/// Gated DeltaNet (Qwen3-Next's linear attention), after Yang et al. 2024.
#[derive(Clone, Debug)]
pub struct DeltaNet {
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// Grouped per key head: q, k, then the value heads of the group, then their gates z.
    pub in_qkvz: Linear,
    /// Grouped per key head: b, then a, one number per value head of the group.
    pub in_ba: Linear,
    /// Depthwise causal convolution over q, k, v channels, [channels, 1, kernel].
    pub conv: Tensor,
    pub a_log: Tensor,
    pub dt_bias: Tensor,
    pub norm: Norm,
    pub out: Linear,
}

#[derive(Clone, Debug)]
pub enum Mixer {
    Attention(Box<Attention>),
    DeltaNet(Box<DeltaNet>),
}

#[derive(Clone, Debug)]
pub struct Mlp {
    /// Present in gated MLPs: down(act(gate x) * up x); else down(act(up x)).
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl Mlp {
    /// `{prefix}gate_proj`, `up_proj`, `down_proj`.
    pub fn gated(prefix: &str, hidden: usize, intermediate: usize, activation: Activation, bias: bool) -> Self {
        Self {
            gate: Some(Linear::new(&format!("{prefix}gate_proj"), intermediate, hidden, bias)),
            up: Linear::new(&format!("{prefix}up_proj"), intermediate, hidden, bias),
            down: Linear::new(&format!("{prefix}down_proj"), hidden, intermediate, bias),
            activation,
        }
    }
}

/// From router logits to (expert, weight) pairs.
#[derive(Clone, Debug, PartialEq)]
pub enum Scoring {
    /// Softmax over all experts, top k, optionally divided by their sum.
    Softmax { renormalise: bool },
    /// Top k of the logits, softmax over those (gpt-oss).
    TopKSoftmax,
    /// Sigmoid scores; chosen by score + correction bias within the best groups; weighted by the score alone.
    Sigmoid { groups: usize, top_groups: usize, renormalise: bool, factor: f32 },
}

#[derive(Clone, Debug)]
pub struct Router {
    pub linear: Linear,
    pub scoring: Scoring,
    /// [experts], added to sigmoid scores when choosing.
    pub correction_bias: Option<Tensor>,
}

/// Where the weights of the experts are.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Experts {
    /// One set of tensors per expert.
    Separate(Vec<Mlp>),
    /// One tensor for all: [experts, …], sliced along the first dimension. Gate and up are one interleaved projection.
    Stacked {
        gate_up: StackedWeight,
        gate_up_bias: Tensor,
        down: StackedWeight,
        down_bias: Tensor,
        activation: Activation,
    },
}

#[derive(Clone, Debug)]
pub enum StackedWeight {
    /// [experts, in, out]
    Dense(Tensor),
    /// Blocks [experts, out, in/32, 16] and scales [experts, out, in/32], both u8.
    Mxfp4 { blocks: Tensor, scales: Tensor },
}

/// An expert that every token passes through.
#[derive(Clone, Debug)]
pub struct SharedExpert {
    pub mlp: Mlp,
    /// [1, hidden]: output times sigmoid(gate x).
    pub gate: Option<Linear>,
}

#[derive(Clone, Debug)]
pub struct Moe {
    pub num_experts: usize,
    pub top_k: usize,
    pub router: Router,
    pub experts: Experts,
    pub shared: Option<SharedExpert>,
    /// Width of one expert's hidden layer.
    pub intermediate: usize,
}

#[derive(Clone, Debug)]
pub enum Ffn {
    Dense(Box<Mlp>),
    Moe(Box<Moe>),
}

/// x += mixer(input_norm(x)); x += ffn(ffn_norm(x)).
#[derive(Clone, Debug)]
pub struct Layer {
    pub input_norm: Norm,
    pub mixer: Mixer,
    pub ffn_norm: Norm,
    pub ffn: Ffn,
}

/// Learned absolute positions, added to the token embeddings (GPT-2, OPT).
#[derive(Clone, Debug)]
pub struct Positions {
    pub weight: Tensor,
    /// Row of position 0.
    pub offset: usize,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// [vocab, hidden], or narrower where `project_in` widens it.
    pub embedding: Tensor,
    /// From the width of the embedding to the hidden size, and back before the head (OPT).
    pub project_in: Option<Linear>,
    pub project_out: Option<Linear>,
    pub positions: Option<Positions>,
    pub layers: Vec<Layer>,
    /// Before the head; some OPT checkpoints have none.
    pub final_norm: Option<Norm>,
    /// [vocab, hidden]; the embedding itself when tied, unless the files have a head of their own.
    pub head: Tensor,
    /// Whether the config ties head and embedding.
    pub tied: bool,
    /// Sequences longer than this cannot be computed (learned positions).
    pub max_positions: Option<usize>,
}

impl Model {
    /// Whether a pass needs the feed-forward network of this layer: that of the last layer feeds nothing but what lies beyond it,
    /// such as the logits.
    pub fn needs_ffn(&self, layer: usize, beyond: bool) -> bool {
        beyond || layer + 1 < self.layers.len()
    }

    /// Routed experts per layer and how many a token visits; (0, 0) for a dense model.
    pub fn experts(&self) -> (usize, usize) {
        let moe = self.layers.iter().find_map(|layer| match &layer.ffn {
            Ffn::Moe(moe) => Some((moe.num_experts, moe.top_k)),
            Ffn::Dense(_) => None,
        });
        moe.unwrap_or((0, 0))
    }
}
