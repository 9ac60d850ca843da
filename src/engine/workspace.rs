//! How the work is cut to fit a memory budget: sequences per batch, rows per product.
//!
//! The same numbers drive the forward pass and the estimate, so that one announces what the other does.

use crate::error::{Error, Kind, Result};
use crate::spec::inventory::{self, Part};
use crate::spec::{Attention, DeltaNet, Mixer, Model};
use crate::{gemm, ops};

/// One part in so many of the budget is for attention scores and packed operands; projections take the rest.
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
    /// Bytes for the intermediate activations of a feed-forward product.
    pub ffn_budget: usize,
}

impl Cut {
    pub fn new(model: &Model, num_sequences: usize, positions: usize, budget: u64) -> Result<Self> {
        let mixers = model.layers.iter().filter_map(|layer| layer.mixer.as_ref());
        let per_sequence = mixers.map(|mixer| mixer_bytes(&mixer.body, model.hidden_size, positions)).max();
        let per_sequence = per_sequence.unwrap_or(1).max(1) as u64;
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
            sequences: ((for_projections / per_sequence) as usize).min(num_sequences).max(1),
            ffn_budget: for_projections as usize,
        })
    }

    /// Rows per feed-forward product whose inner width is `intermediate`.
    pub fn ffn_rows(&self, hidden: usize, intermediate: usize) -> usize {
        (self.ffn_budget / ffn_row_bytes(hidden, intermediate)).max(1)
    }

    /// Bytes beside weights and residual stream while a batch passes `mixer`.
    pub fn mixer_workspace(&self, mixer: &Mixer, hidden: usize, positions: usize) -> usize {
        let threads = rayon::current_num_threads();
        let scores = match mixer {
            Mixer::Attention(attention) => {
                let Attention { heads, kv_heads, head_dim, span, .. } = **attention;
                let queries = ops::chunk_queries(heads / kv_heads).min(positions);
                let rows = queries * heads / kv_heads;
                let keys = span.most_keys(queries, positions);
                // Scores, the same packed, and the sums.
                threads * rows * (2 * keys + 2 * head_dim) * 4
            }
            Mixer::DeltaNet(net) => threads * (net.key_dim + net.value_dim) * ops::DELTA_CHUNK * 6 * 4,
            Mixer::GatedConv(_) => 0,
            Mixer::Mamba2(mamba) => threads * mamba.head_dim * mamba.state * 4,
        };
        let rows = self.sequences * positions;
        self.sequences * mixer_bytes(mixer, hidden, positions) + scores + gemm::kept_bytes(rows, hidden, threads)
    }

    /// The same on a GPU: scores exist while queries, keys, values and the result do.
    pub fn mixer_vram(&self, mixer: &Mixer, hidden: usize, positions: usize) -> usize {
        let Mixer::Attention(attention) = mixer else { return self.sequences * mixer_bytes(mixer, hidden, positions) };
        let Attention { heads, kv_heads, head_dim, span, .. } = **attention;
        let gated = attention.gate.is_some();
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let of_rows = |width: usize| self.sequences * positions * width * 4;
        let scoring = of_rows(hidden + q * if gated { 3 } else { 2 } + 2 * kv)
            + 4 * ops::score_count(heads, ops::queries_per_chunk(heads, positions), positions, span);
        let projecting = of_rows(hidden + q * if gated { 4 } else { 2 } + 2 * kv);
        scoring.max(projecting).max(of_rows(2 * hidden + q))
    }

    /// Bytes of one feed-forward product of `rows` tokens.
    pub fn ffn_workspace(&self, rows: usize, hidden: usize, intermediate: usize) -> usize {
        let packed = gemm::kept_bytes(rows, hidden.max(intermediate), rayon::current_num_threads());
        rows * ffn_row_bytes(hidden, intermediate) + packed
    }
}

/// Bytes of weights that may wait for their turn: the cores of the layers read ahead, and some experts. `size` gives the
/// bytes of a part once loaded.
pub fn read_ahead(model: &Model, chunk_layers: usize, size: &impl Fn(&Part) -> Result<usize>) -> Result<usize> {
    let mut largest = 0;
    for layer in &model.layers {
        largest = largest.max(inventory::core(layer, true).iter().map(size).sum::<Result<usize>>()?);
    }
    let moe = model.layers.iter().any(|layer| layer.moe().is_some());
    let experts = if moe && chunk_layers > 1 { EXPERTS_AHEAD } else { 0 };
    Ok((largest * chunk_layers.saturating_sub(1) + experts).max(MIN_READ_AHEAD))
}

/// Bytes of weights that can be on a device at once: of the layer at work, of what waits, and of experts at work.
pub fn weights_at_once(model: &Model, queue: usize, size: &impl Fn(&Part) -> Result<usize>) -> Result<usize> {
    let (mut core, mut expert, mut total) = (0, 0, 0);
    let all = |parts: &[Part]| parts.iter().map(size).sum::<Result<usize>>();
    for layer in &model.layers {
        let of_core = all(&inventory::core(layer, true))?;
        (core, total) = (core.max(of_core), total + of_core);
        if let Some(moe) = layer.moe() {
            let of_expert = all(&inventory::expert(&moe.experts, 0))?;
            (expert, total) = (expert.max(of_expert), total + moe.num_experts * of_expert);
        }
    }
    // One portion may wait however small the queue, and an expert is let go one step after its use.
    Ok((core + queue.max(core).max(expert) + 2 * expert).min(total))
}

/// Input, gate, up and the output of one row.
fn ffn_row_bytes(hidden: usize, intermediate: usize) -> usize {
    (2 * hidden + 2 * intermediate) * 4
}

/// Of a feed-forward product of some rows on a GPU, its input left out: gate and up, or one of them and the output.
pub fn ffn_vram(rows: usize, hidden: usize, intermediate: usize) -> usize {
    rows * (2 * intermediate).max(intermediate + hidden) * 4
}

/// Workspace of a token mixer for one sequence, without attention scores.
pub fn mixer_bytes(mixer: &Mixer, hidden: usize, positions: usize) -> usize {
    let io = 2 * hidden * 4;
    let inner = match mixer {
        Mixer::Attention(attention) => {
            let Attention { heads, kv_heads, head_dim, .. } = **attention;
            let gated = attention.gate.is_some();
            let (q, kv) = (heads * head_dim, kv_heads * head_dim);
            // q before and after its norm, or q and the result; the gate and what it is cut from; k likewise, and v.
            (q * (2 + if gated { 2 } else { 0 }) + kv * 3) * 4
        }
        Mixer::DeltaNet(net) => {
            let DeltaNet { key_heads, value_heads, key_dim, value_dim, .. } = **net;
            let (keys, values) = (value_heads * key_dim, value_heads * value_dim);
            let projected = 2 * key_heads * key_dim + 2 * values;
            // While the state runs: q, k (repeated per value head), v, result and gates. After that: the result, its
            // norm and z.
            let running = 2 * keys + 2 * values + 2 * value_heads;
            let after = 3 * values;
            (projected + running.max(after)) * 4
        }
        // What is projected, its three parts, and what the convolution makes.
        Mixer::GatedConv(_) => 7 * hidden * 4,
        Mixer::Mamba2(mamba) => {
            let inner = mamba.heads * mamba.head_dim;
            let channels = inner + 2 * mamba.groups * mamba.state;
            // What is projected and its parts; the convolved; the result twice.
            (2 * (inner + channels + mamba.heads) + channels + 3 * inner) * 4
        }
    };
    positions * (io + inner)
}
