//! How the work is cut to fit a memory budget: sequences per batch, rows per product, bytes for attention scores and for
//! weights that wait.
//!
//! The same numbers drive the forward pass and the estimate, so that one announces what the other does.

use candle_core::DType;

use super::inventory;
use super::reader::resident_bytes;
use super::spec::{Attention, DeltaNet, Ffn, Layer, Mixer, Model};
use crate::error::{Error, Kind, Result};

/// Share of the budget that attention scores may take; projections take the rest.
const SCORE_SHARE: u64 = 4;
/// Bytes of weights that may always wait, however small the layers.
const MIN_READ_AHEAD: usize = 16 << 20;
/// Experts that may wait: enough to even out a disk or link; more only takes memory.
const EXPERTS_AHEAD: usize = 64 << 20;

/// How one analysis is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Sequences per batch through the token mixers.
    pub sequences: usize,
    /// Bytes that scores of one chunk of queries may take.
    pub score_budget: usize,
    /// Bytes for the intermediate activations of a feed-forward product.
    pub ffn_budget: usize,
}

impl Cut {
    pub fn new(model: &Model, num_sequences: usize, positions: usize, budget: u64) -> Result<Self> {
        let per_sequence =
            model.layers.iter().map(|layer| mixer_bytes(&layer.mixer, model.hidden_size, positions)).max();
        let per_sequence = per_sequence.unwrap_or(1) as u64;
        let for_projections = budget - budget / SCORE_SHARE;
        if per_sequence > for_projections {
            let needed = per_sequence * SCORE_SHARE / (SCORE_SHARE - 1) + 1;
            return Err(Error::new(
                Kind::Oom,
                format!("memory_budget of {budget} bytes is too small for one sequence of {positions} tokens"),
            )
            .hint(format!("this model needs at least {needed} bytes; or use shorter sequences")));
        }
        Ok(Self {
            sequences: ((for_projections / per_sequence) as usize).clamp(1, num_sequences),
            score_budget: (budget / SCORE_SHARE) as usize,
            ffn_budget: for_projections as usize,
        })
    }

    /// Rows per feed-forward product whose inner width is `intermediate`.
    pub fn ffn_rows(&self, hidden: usize, intermediate: usize) -> usize {
        (self.ffn_budget / ffn_row_bytes(hidden, intermediate)).max(1)
    }

    /// Bytes beside weights and residual stream while a batch passes the mixer of `layer`.
    pub fn mixer_workspace(&self, layer: &Layer, hidden: usize, positions: usize, dtype: DType) -> usize {
        let (scores, width) = match &layer.mixer {
            Mixer::Attention(attention) => {
                let span = attention.window.map_or(positions, |width| positions.min(2 * width));
                let scores = self.sequences * attention.heads * positions * span * 4;
                let gate = if attention.gated { 2 } else { 1 };
                (scores.min(self.score_budget), attention.heads * attention.head_dim * gate)
            }
            Mixer::DeltaNet(net) => (0, net.in_qkvz.weight.shape[0]),
        };
        let projections = self.sequences * mixer_bytes(&layer.mixer, hidden, positions);
        projections + scores + widened(hidden, width, dtype)
    }

    /// Bytes of one feed-forward product of `rows` tokens.
    pub fn ffn_workspace(&self, rows: usize, hidden: usize, intermediate: usize, dtype: DType) -> usize {
        rows * ffn_row_bytes(hidden, intermediate) + widened(hidden, intermediate, dtype)
    }
}

/// What a product adds with a weight in bf16: that weight in f32.
fn widened(input: usize, out: usize, dtype: DType) -> usize {
    if dtype == DType::BF16 { input * out * 4 } else { 0 }
}

/// Input, gate, up, their product and the output of one row.
fn ffn_row_bytes(hidden: usize, intermediate: usize) -> usize {
    (2 * hidden + 3 * intermediate) * 4
}

/// Workspace of a token mixer for one sequence, without attention scores.
pub fn mixer_bytes(mixer: &Mixer, hidden: usize, positions: usize) -> usize {
    let io = 2 * hidden * 4;
    let inner = match mixer {
        Mixer::Attention(attention) => {
            let Attention { heads, kv_heads, head_dim, gated, .. } = **attention;
            let (q, kv) = (heads * head_dim, kv_heads * head_dim);
            // q as projected, a chunk of it, the chunks of the output and their concatenation, of which one is gone
            // before the other is largest; the gate; k and v.
            (q * (3 + if gated { 2 } else { 0 }) + 2 * kv) * 4
        }
        Mixer::DeltaNet(net) => {
            let DeltaNet { key_heads, value_heads, key_dim, value_dim, .. } = **net;
            let (keys, values) = (value_heads * key_dim, value_heads * value_dim);
            let projected = 2 * key_heads * key_dim + 2 * values;
            // While the state runs: q, k (repeated per value head), v, result and gates. After that: the result head by
            // head and token by token, its norm, z and their product.
            let running = 2 * keys + 2 * values + 2 * value_heads;
            let after = 5 * values;
            (projected + running.max(after)) * 4
        }
    };
    positions * (io + inner)
}

/// Bytes of weights that may wait for their turn: the cores of the layers read ahead, and some experts.
pub fn read_ahead(model: &Model, dtype: DType, chunk_layers: usize) -> usize {
    let core =
        |layer: &Layer| inventory::core(layer, true).iter().map(|part| resident_bytes(part, dtype)).sum::<usize>();
    let cores = model.layers.iter().map(core).max().unwrap_or(0) * chunk_layers.saturating_sub(1);
    let moe = model.layers.iter().any(|layer| matches!(layer.ffn, Ffn::Moe(_)));
    let experts = if moe && chunk_layers > 1 { EXPERTS_AHEAD } else { 0 };
    (cores + experts).max(MIN_READ_AHEAD)
}

/// Loaded weights of one whole layer, bytes.
pub fn layer_resident_bytes(layer: &Layer, dtype: DType) -> usize {
    let core: usize = inventory::core(layer, true).iter().map(|part| resident_bytes(part, dtype)).sum();
    let experts = match &layer.ffn {
        Ffn::Dense(_) => 0,
        Ffn::Moe(moe) => {
            let one = inventory::expert(&moe.experts, 0);
            moe.num_experts * one.iter().map(|part| resident_bytes(part, dtype)).sum::<usize>()
        }
    };
    core + experts
}
