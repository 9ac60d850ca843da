//! What operations are told beside their tensors: how attention, linear attention, projections and feed-forward networks are
//! made. Wherever the operands are, they are the same.

use std::sync::Mutex;

use crate::error::Result;
use crate::gemm::Scratch;
use crate::tensor::Tensor;
use crate::vocabulary::{Activation, Order, Span};

/// Bytes of attention scores that exist at once on a GPU.
const SCORE_BYTES: usize = 256 << 20;

/// A weight, how it is stored, and its bias [out] in f32.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    pub weight: &'a Tensor,
    pub order: Order,
    pub bias: Option<&'a Tensor>,
}

impl Projection<'_> {
    /// (input, out)
    pub fn sizes(&self) -> Result<(usize, usize)> {
        let (rows, columns) = self.weight.dims2()?;
        Ok(match self.order {
            Order::OutIn => (columns, rows),
            Order::InOut => (rows, columns),
        })
    }
}

/// The weights of a feed-forward network: down(act(gate x) * up x), or without a gate, or with both interleaved in `up`.
pub struct FeedForward<'a> {
    pub gate: Option<Projection<'a>>,
    pub up: Projection<'a>,
    pub down: Projection<'a>,
    pub activation: Activation,
    /// The weight of a token multiplies what the network reads, not what it writes.
    pub on_input: bool,
    /// x may be rounded to bf16: see `project`.
    pub rounded: bool,
}

/// Memory for what is between the products of one network, kept for the next.
pub type Room = Mutex<[Scratch; 3]>;

#[derive(Clone, Copy)]
pub struct Attend<'a> {
    pub positions: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Of queries and keys.
    pub head_dim: usize,
    pub value_dim: usize,
    pub span: Span,
    /// Factor on q·k.
    pub scale: f32,
    /// cap * tanh(score / cap) in place of a score.
    pub softcap: Option<f32>,
    /// Added to the scores of a head [heads], times the position of the key; and, where all three are rounded to bf16, what that is
    /// then multiplied with.
    pub alibi: Option<(&'a [f32], Option<f32>)>,
    /// Operands may be rounded to bf16 where a device multiplies that faster.
    pub rounded: bool,
}

/// Queries whose scores exist at once on a GPU.
pub fn score_queries(heads: usize, positions: usize) -> usize {
    (SCORE_BYTES / 4 / heads / positions).clamp(1, positions)
}

/// Most scores of so many queries: of all heads, with keys that one of the queries sees.
pub fn scores(heads: usize, queries: usize, positions: usize, span: Span) -> usize {
    heads * queries * span.most_keys(queries, positions)
}

/// The heads of a gated delta rule and what decides how fast they forget.
pub struct DeltaNet<'a> {
    pub positions: usize,
    pub heads: usize,
    /// Heads that share a key.
    pub group: usize,
    /// [sequences * positions, 2 * heads]: for each key, beta of its group before the sigmoid, then what drives the decay.
    pub beta_and_decay: &'a Tensor,
    /// Logarithm of the rate of decay, [heads].
    pub a_log: &'a Tensor,
    /// Added to what drives the decay, [heads].
    pub dt_bias: &'a Tensor,
}

/// Where a head is in the projection and in the weight of the convolution.
#[derive(Clone, Copy)]
pub struct Source {
    pub first_column: usize,
    pub first_channel: usize,
}

/// A depthwise causal convolution over the positions of each sequence.
#[derive(Clone, Copy)]
pub struct CausalConv {
    pub positions: usize,
    /// SiLU of the result.
    pub silu: bool,
}

/// The recurrence of Mamba-2.
#[derive(Clone, Copy)]
pub struct Scan {
    pub positions: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Groups of heads that share B and C.
    pub groups: usize,
    pub state: usize,
    /// Steps are no shorter.
    pub min_step: f32,
}

pub struct ShortConv {
    pub positions: usize,
    /// Channels of a head.
    pub width: usize,
    /// One per head of the result; several may read the same columns.
    pub heads: Vec<Source>,
    /// Brings each head at each position to this length.
    pub length: Option<f32>,
}
