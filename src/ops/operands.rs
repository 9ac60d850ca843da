//! Parameters of the operations beside their tensors, for attention, linear attention, projections
//! and feed-forward networks. They are the same for all devices.

use std::sync::Mutex;

use crate::error::Result;
use crate::gemm::Scratch;
use crate::tensor::Tensor;
use crate::vocabulary::{Activation, Order, Span};

/// The most bytes of attention scores on a GPU at the same time.
const SCORE_BYTES: usize = 256 << 20;

/// A weight with its storage order, and its bias [out] in f32.
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

/// The weights of a feed-forward network: down(act(gate x) * up x), or down(act(up x)) without a
/// gate. `up` may contain both gate and up.
pub struct FeedForward<'a> {
    pub gate: Option<Projection<'a>>,
    pub up: Projection<'a>,
    pub down: Projection<'a>,
    pub activation: Activation,
    /// True if the routing weight of a token multiplies the input of the network in place of its
    /// output.
    pub on_input: bool,
    /// True if x may be rounded to bf16: see `project`.
    pub rounded: bool,
}

/// Scratch memory for the intermediate results of one network, reused by the next.
pub type ExpertScratch = Mutex<[Scratch; 3]>;

#[derive(Clone, Copy)]
pub struct Attend<'a> {
    pub positions: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Size of a head of queries and of keys.
    pub head_dim: usize,
    pub value_dim: usize,
    pub span: Span,
    /// Factor of q·k.
    pub scale: f32,
    /// Scores become cap * tanh(score / cap).
    pub softcap: Option<f32>,
    /// Linear biases (ALiBi): a slope per head, [heads], which is multiplied by the position of the
    /// key and added to the score. With the second number, slope, position and product are rounded
    /// to bf16, and the product is multiplied by that number.
    pub alibi: Option<(&'a [f32], Option<f32>)>,
    /// True if operands may be rounded to bf16 where the device multiplies bf16 faster.
    pub rounded: bool,
}

/// The attention that positions receive: sums over the queries of each sequence and head.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub heads: usize,
    pub positions: usize,
    /// Number of first positions that have sums over themselves alone.
    pub first: usize,
    /// Sum of the weights that each key receives, [sequences * heads, positions].
    pub all: Vec<f64>,
    /// The same over the first queries, [sequences * heads, first].
    pub early: Vec<f64>,
    /// Sum of the largest weight of each query, [sequences * heads].
    pub largest: Vec<f64>,
    /// The same over the first queries.
    pub largest_early: Vec<f64>,
}

/// Number of queries whose scores fit into GPU memory at the same time.
pub fn queries_per_chunk(heads: usize, positions: usize) -> usize {
    (SCORE_BYTES / 4 / heads / positions).clamp(1, positions)
}

/// The largest number of scores of `queries` queries: those of all heads with the keys that one of
/// the queries attends to.
pub fn score_count(heads: usize, queries: usize, positions: usize, span: Span) -> usize {
    heads * queries * span.most_keys(queries, positions)
}

/// The heads of a gated delta rule, with the inputs of their gates.
pub struct DeltaNet<'a> {
    pub positions: usize,
    pub heads: usize,
    /// Number of value heads that share a key head.
    pub group: usize,
    /// [sequences * positions, 2 * heads]: for each key head, the beta of its group before the
    /// sigmoid, then the input of the decay.
    pub beta_and_decay: &'a Tensor,
    /// Logarithm of the decay rate, [heads].
    pub a_log: &'a Tensor,
    /// Added to the input of the decay, [heads].
    pub dt_bias: &'a Tensor,
}

/// The position of a head in the projection and in the weight of the convolution.
#[derive(Clone, Copy)]
pub struct Source {
    pub first_column: usize,
    pub first_channel: usize,
}

/// A depthwise causal convolution over the positions of each sequence.
#[derive(Clone, Copy)]
pub struct CausalConv {
    pub positions: usize,
    /// True if SiLU is applied to the output.
    pub silu: bool,
}

/// The selective scan of Mamba-2.
#[derive(Clone, Copy)]
pub struct Scan {
    pub positions: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Number of groups. The heads of a group share B and C.
    pub groups: usize,
    pub state: usize,
    /// The lower bound of the time steps.
    pub min_step: f32,
}

pub struct ShortConv {
    pub positions: usize,
    /// Number of channels of a head.
    pub width: usize,
    /// One source per output head. Several may read the same columns.
    pub heads: Vec<Source>,
    /// Each head is scaled to this norm at each position.
    pub length: Option<f32>,
}
