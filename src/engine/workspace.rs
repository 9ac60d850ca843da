//! Batch sizes for a memory budget: sequences per batch and rows per product.
//!
//! The forward pass and the estimate use the same numbers.

use super::latent;
use crate::error::{Error, Kind, Result};
use crate::spec::inventory::{self, Part};
use crate::spec::{Attention, DeltaNet, Mixer, Model, Qkv};
use crate::{gemm, ops};

/// The fraction 1 / SCORE_SHARE of the budget is for attention scores and packed operands.
/// Projections use the rest.
const SCORE_SHARE: u64 = 4;

/// Bytes of weights that may be read ahead even if layers are small.
const MIN_READ_AHEAD: usize = 16 << 20;
/// Bytes of experts that may be read ahead: enough to bridge the latency of a disk or network.
const EXPERTS_AHEAD: usize = 64 << 20;

/// The batch sizes of one analysis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BatchPlan {
    /// Number of sequences per batch in the token mixers.
    pub sequences: usize,
    /// Bytes for the intermediate activations of a feed-forward product.
    pub ffn_budget: usize,
}

impl BatchPlan {
    pub(super) fn new(model: &Model, num_sequences: usize, positions: usize, budget: u64) -> Result<Self> {
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

    /// Number of rows per feed-forward product with inner width `intermediate`.
    pub(super) fn ffn_rows(&self, hidden: usize, intermediate: usize) -> usize {
        (self.ffn_budget / ffn_row_bytes(hidden, intermediate)).max(1)
    }

    /// Bytes in addition to weights and residual stream while a batch is in `mixer`.
    pub(super) fn mixer_workspace(&self, mixer: &Mixer, hidden: usize, positions: usize) -> usize {
        let threads = rayon::current_num_threads();
        let scores = match mixer {
            Mixer::Attention(attention) => {
                let Attention { heads, kv_heads, head_dim, value_dim, span, .. } = **attention;
                let queries = ops::chunk_queries(heads / kv_heads).min(positions);
                let rows = queries * heads / kv_heads;
                let keys = span.most_keys(queries, positions);
                // Scores, packed scores, and output sums.
                threads * rows * (2 * keys + head_dim + value_dim) * 4
            }
            Mixer::DeltaNet(net) => threads * (net.key_dim + net.value_dim) * ops::DELTA_CHUNK * 6 * 4,
            Mixer::GatedConv(_) => 0,
            Mixer::Mamba2(mamba) => threads * mamba.head_dim * mamba.state * 4,
        };
        let rows = self.sequences * positions;
        let packed = gemm::scratch_bytes(rows, hidden.max(read_at_the_end(mixer)), threads);
        self.sequences * mixer_bytes(mixer, hidden, positions) + scores + packed
    }

    /// The same on a GPU, where scores exist at the same time as queries, keys, values and outputs.
    /// `operand` is the bytes of a weight as a product converts it.
    pub(super) fn mixer_vram(&self, mixer: &Mixer, hidden: usize, positions: usize, operand: usize) -> usize {
        let Mixer::Attention(attention) = mixer else {
            return self.sequences * mixer_bytes(mixer, hidden, positions) + operand;
        };
        let Attention { heads, span, .. } = **attention;
        let Widths { q, k, v, out } = Widths::of(attention);
        let gate = if attention.gate.is_some() { q } else { 0 };
        let of_rows = |width: usize| self.sequences * positions * width * 4;
        let scoring = of_rows(hidden + q + k + v + out + gate)
            + 4 * ops::score_count(heads, ops::queries_per_chunk(heads, positions), positions, span);
        let [projecting, arranging] = match &attention.qkv {
            Qkv::Latent(latent) => latent::values_at_once(attention, latent),
            _ => [2 * q + k + v + 2 * gate, 0],
        };
        let computing = of_rows((hidden + projecting).max(2 * hidden + out)) + operand;
        computing.max(of_rows(hidden + arranging)).max(scoring)
    }

    /// Bytes of one feed-forward product of `rows` tokens.
    pub(super) fn ffn_workspace(&self, rows: usize, hidden: usize, intermediate: usize) -> usize {
        let packed = gemm::scratch_bytes(rows, hidden.max(intermediate), rayon::current_num_threads());
        rows * ffn_row_bytes(hidden, intermediate) + packed
    }
}

/// Bytes of weights that may be read ahead: the layers read ahead, without their experts, and some
/// experts. `size` returns the loaded size of a weight in bytes.
pub(super) fn read_ahead(model: &Model, chunk_layers: usize, size: &impl Fn(&Part) -> Result<usize>) -> Result<usize> {
    let mut largest = 0;
    for layer in &model.layers {
        largest = largest.max(inventory::core(layer, true).iter().map(size).sum::<Result<usize>>()?);
    }
    let moe = model.layers.iter().any(|layer| layer.moe().is_some());
    let experts = if moe && chunk_layers > 1 { EXPERTS_AHEAD } else { 0 };
    Ok((largest * chunk_layers.saturating_sub(1) + experts).max(MIN_READ_AHEAD))
}

/// The most bytes of weights on a device at the same time: those of the current layer, those read
/// ahead, and the experts in use.
pub(super) fn weights_at_once(model: &Model, queue: usize, size: &impl Fn(&Part) -> Result<usize>) -> Result<usize> {
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
    // One portion may be read ahead even if it exceeds the queue. An expert is freed one step after
    // its use.
    Ok((core + queue.max(core).max(expert) + 2 * expert).min(total))
}

/// Numbers of values for each row: queries, keys, values, and their weighted sums.
struct Widths {
    q: usize,
    k: usize,
    v: usize,
    out: usize,
}

impl Widths {
    fn of(attention: &Attention) -> Self {
        let Attention { heads, kv_heads, head_dim, value_dim, .. } = *attention;
        let (q, k) = (heads * head_dim, kv_heads * head_dim);
        Self { q, k, v: kv_heads * value_dim, out: heads * value_dim }
    }
}

/// The number of values of a row that the output projection of a mixer reads.
fn read_at_the_end(mixer: &Mixer) -> usize {
    match mixer {
        Mixer::Attention(attention) => Widths::of(attention).out,
        Mixer::DeltaNet(net) => net.value_heads * net.value_dim,
        Mixer::GatedConv(_) => 0,
        Mixer::Mamba2(mamba) => mamba.heads * mamba.head_dim,
    }
}

/// Input, gate, up and output of one row.
fn ffn_row_bytes(hidden: usize, intermediate: usize) -> usize {
    (2 * hidden + 2 * intermediate) * 4
}

/// GPU memory of a feed-forward product of some rows, without its input: gate and up, or one of
/// them and the output.
pub(super) fn ffn_vram(rows: usize, hidden: usize, intermediate: usize) -> usize {
    rows * (2 * intermediate).max(intermediate + hidden) * 4
}

/// Workspace of a token mixer for one sequence, without attention scores.
pub(super) fn mixer_bytes(mixer: &Mixer, hidden: usize, positions: usize) -> usize {
    let io = 2 * hidden * 4;
    let inner = match mixer {
        Mixer::Attention(attention) => {
            let Widths { q, k, v, out } = Widths::of(attention);
            4 * match &attention.qkv {
                Qkv::Latent(latent) => {
                    let [projecting, arranging] = latent::values_at_once(attention, latent);
                    projecting.max(arranging).max(q + k + v + out)
                }
                // q before and after its norm, or q and the output; the gate and the projection
                // that contains it; k twice, and v.
                _ => q + q.max(out) + if attention.gate.is_some() { 2 * q } else { 0 } + 2 * k + v,
            }
        }
        Mixer::DeltaNet(net) => {
            let DeltaNet { key_heads, value_heads, key_dim, value_dim, .. } = **net;
            let (keys, values) = (value_heads * key_dim, value_heads * value_dim);
            let projected = 2 * key_heads * key_dim + 2 * values;
            // During the recurrence: q, k (repeated per value head), v, output and gates.
            // Afterwards: the output, its norm and z.
            let running = 2 * keys + 2 * values + 2 * value_heads;
            let after = 3 * values;
            (projected + running.max(after)) * 4
        }
        // The projection, its three parts, and the output of the convolution.
        Mixer::GatedConv(_) => 7 * hidden * 4,
        Mixer::Mamba2(mamba) => {
            let inner = mamba.heads * mamba.head_dim;
            let channels = inner + 2 * mamba.groups * mamba.state;
            // The projection and its parts, the output of the convolution, and the output twice.
            (2 * (inner + channels + mamba.heads) + channels + 3 * inner) * 4
        }
    };
    positions * (io + inner)
}
