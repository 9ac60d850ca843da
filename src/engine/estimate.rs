//! The estimate of an analysis, in bytes and operations, from the description of the model alone.
//!
//! The forward pass uses the same lists (`inventory`) and the same batch sizes (`workspace`).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use safetensors::Dtype;

use super::head::{BLOCK_BYTES as HEAD_BLOCK_BYTES, LEFT_BY_PIECE, LEFT_BYTES as HEAD_LEFT_BYTES, SMALLEST_PIECE};
use super::measuring;
use super::observe;
use super::pass::ROUNDS;
use super::workspace::{BatchPlan, ffn_vram, read_ahead};
use crate::error::{Error, Result};
use crate::gemm;
use crate::hub::{ByteSource, STREAM_BYTES};
use crate::record::{ComputeDtype, DEFAULT_LADDER, Estimate, EstimateArgs, LoadArgs, MAX_LANES, MAX_TOKENS};
use crate::spec::inventory::{self, Part};
use crate::spec::{Ffn, Layer, Mixer, Model, Moe, Role, StoredTensor};
use crate::threads;
use crate::vocabulary::Span;
use crate::weights::Described;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::headers;
use crate::weights::load::resident_bytes;

/// The largest number of values that all layers compute for all tokens in one tensor: 2^53.
const MAX_VALUES: f64 = 9.0e15;

/// Memory of the program itself: code, script engine, headers. Measured on small models it is 24 to
/// 31 MB. The kernel decides how much of the program's file it maps around the code that runs: less
/// where the file is not in its cache yet, more of a larger build.
const PROCESS_BYTES: u64 = 24 << 20;

/// Estimates the analysis of the model in `source`. The source has config.json and, for exact
/// sizes, the weight files, whose headers are read.
///
/// # Errors
/// The errors of the config and of the headers, for example a missing weight.
pub fn estimate(source: Arc<dyn ByteSource>, model: &LoadArgs, args: &EstimateArgs) -> Result<Estimate> {
    let Described { spec, checkpoint, .. } = Described::open(source)?;
    if let Some(checkpoint) = &checkpoint {
        headers::check(checkpoint, &spec, args.logits)?;
    }
    let stored = |tensor: &StoredTensor, role: Option<Role>| match &checkpoint {
        // A missing tensor, such as the head of a base model, is not read either.
        Some(checkpoint) => checkpoint.entry(&tensor.name).map_or(0, |entry| entry.bytes),
        None => inventory::released_bytes(&spec, tensor, role),
    };
    let has = |tensor: &StoredTensor| checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.contains(&tensor.name));
    let (mut parameters, mut download) = (0, 0);
    for (tensor, role) in inventory::tensors(&spec) {
        parameters += if has(&tensor) { tensor.weights } else { 0 };
        download += stored(&tensor, role);
    }
    check_size(&spec, args)?;
    if args.lanes > MAX_LANES {
        return Err(Error::bad_argument(format!("{} lanes are too many for one pass", args.lanes))
            .hint(format!("at most {MAX_LANES}")));
    }
    let skipped = if args.logits { 0 } else { unread_bytes(&spec, &stored) };
    let tokens = (args.num_sequences * args.sequence_length) as u64;
    let resident = |part: &Part, gpu: bool| {
        let entry = checkpoint.as_ref().and_then(|checkpoint| checkpoint.entry(&part.stored()[0].name));
        // Models are usually released in bf16.
        let usual = if spec.stored_in_f32 { Dtype::F32 } else { Dtype::BF16 };
        let stored = entry.map_or(usual, |entry| entry.dtype);
        resident_bytes(part, stored, gpu)
    };
    let (size, size_there) = (|part: &Part| resident(part, false), |part: &Part| resident(part, true));
    let layer_bytes = spec.layers.iter().map(|layer| layer_bytes(layer, &size)).max().unwrap_or(0) as u64;
    threads::pool().map_err(|e| Error::no_thread("computing", &e))?;
    let mut plan = BatchPlan::new(&spec, args.num_sequences, args.sequence_length, args.memory_budget)?;
    // Sequences of several lanes are one batch, of as many as fit.
    let batch = |sequences: usize| ((1 + args.lanes) * sequences).div_ceil(ROUNDS).min(sequences);
    plan.sequences = plan.sequences.min(batch(args.num_sequences));
    let chunk_layers = model.chunk_layers.clamp(1, spec.layers.len());
    let queue = read_ahead(&spec, chunk_layers, &|part: &Part| Ok(size(part)))?;
    let phases = Phases { spec: &spec, plan: &plan, args, size: &size, chunk_layers, queue, gpu: None };
    let peak = phases.peak();
    // One GPU with its shard of the sequences.
    let shard = args.num_sequences.div_ceil(args.gpus.clamp(1, args.num_sequences.max(1)));
    let shard_args = EstimateArgs { num_sequences: shard, ..args.clone() };
    let gpu_plan = BatchPlan { sequences: plan.sequences.min(batch(shard)), ..plan.clone() };
    let on_gpu =
        Phases { plan: &gpu_plan, args: &shard_args, size: &size_there, gpu: Some(model.dtype), ..phases }.peak();
    // Weights that have arrived from the hub but are not read yet.
    let in_flight = if model.stream { STREAM_BYTES.min(download) } else { 0 };
    let laying_out = checkpoint.as_ref().map_or(0, |checkpoint| laying_out_bytes(&spec, checkpoint, args.logits));
    let norms = spec.norm_sites().len() as u64;
    // Levels of every position, and extremes with and without position 0.
    let hidden = spec.hidden_size as u64;
    let text = (args.num_sequences, args.sequence_length);
    let measured = observe::observer_bytes(&spec, &measuring::whole(&spec, &args.measure)?, text);
    let tap_bytes = tokens * hidden + norms * args.num_sequences as u64 * hidden * 16 + measured;
    let (num_experts, num_experts_per_tok) = spec.experts();
    Ok(Estimate {
        id: model.id.clone(),
        model_type: spec.model_type.clone(),
        num_layers: spec.layers.len(),
        hidden_size: spec.hidden_size,
        num_experts,
        num_experts_per_tok,
        parameters,
        download_bytes: download,
        read_bytes: download - skipped,
        layer_bytes,
        resident_weight_bytes: peak.weights + in_flight,
        hidden_bytes: peak.hidden,
        tap_bytes,
        workspace_bytes: peak.workspace + laying_out,
        total_bytes: PROCESS_BYTES + tap_bytes + peak.total() + in_flight + laying_out,
        vram_bytes: on_gpu.total() + tap_vram(&spec, &shard_args),
        flops: (1 + args.lanes) as f64 * 2.0 * tokens as f64 * inventory::active_parameters(&spec) as f64
            + (1 + args.lanes) as f64 * attention_flops(&spec, args),
    })
}

/// Checks that the product of tokens, layers and widths can be represented.
fn check_size(spec: &Model, args: &EstimateArgs) -> Result<()> {
    let tokens =
        args.num_sequences.checked_mul(args.sequence_length).filter(|tokens| (1..=MAX_TOKENS).contains(tokens));
    let Some(tokens) = tokens else {
        let (sequences, length) = (args.num_sequences, args.sequence_length);
        return Err(Error::bad_argument(format!(
            "{sequences} sequences of {length} tokens are not 1 to {MAX_TOKENS} tokens"
        ))
        .hint("16 sequences of 2048 tokens are a usual analysis"));
    };
    let parts = spec.layers.iter().flat_map(|layer| inventory::core(layer, true));
    let widest = parts.flat_map(|part| part.stored().into_iter().flat_map(|tensor| tensor.shape)).max();
    let values = tokens as f64 * spec.layers.len() as f64 * widest.unwrap_or(1).max(spec.hidden_size) as f64;
    if values > MAX_VALUES {
        return Err(Error::bad_argument(format!("{tokens} tokens in a model of this size are {values:.0e} values"))
            .hint("no machine computes so much: take fewer or shorter sequences"));
    }
    Ok(())
}

/// GPU memory of the statistics: levels, and records that have not been fetched yet.
fn tap_vram(spec: &Model, args: &EstimateArgs) -> u64 {
    let (sequences, hidden) = (args.num_sequences, spec.hidden_size);
    let record = observe::record_bytes(sequences, hidden, DEFAULT_LADDER.len());
    // Half of the records at most are pending, because memory can peak in any layer.
    let pending = spec.norm_sites().len().div_ceil(2) * record;
    let pending = pending.min(observe::PENDING_BYTES + record.div_ceil(ROUNDS));
    (sequences * args.sequence_length * hidden + pending) as u64
}

/// Loaded size of one whole layer.
fn layer_bytes(layer: &Layer, size: &impl Fn(&Part) -> usize) -> usize {
    let core: usize = inventory::core(layer, true).iter().map(size).sum();
    let expert = |moe: &Moe| inventory::expert(&moe.experts, 0).iter().map(size).sum::<usize>();
    core + layer.moe().map_or(0, |moe| moe.num_experts * expert(moe))
}

/// Stored bytes that an analysis without logits does not read: the head, the final norm, and the
/// feed-forward networks that `Model::needs_ffn` rules out.
fn unread_bytes(spec: &Model, stored: &impl Fn(&StoredTensor, Option<Role>) -> u64) -> u64 {
    let all = |parts: &[Part]| -> u64 {
        let tensors = parts.iter().flat_map(|part| part.stored().into_iter().map(|tensor| (tensor, part.role)));
        // Several weights may be rows of one stored tensor.
        let mut known = HashSet::new();
        let once = tensors.filter(|(tensor, _)| known.insert(tensor.name.clone()));
        once.map(|(tensor, role)| stored(&tensor, Some(role))).sum()
    };
    let head = if spec.head == spec.embedding {
        0
    } else {
        spec.head.stored().iter().map(|tensor| stored(tensor, None)).sum()
    };
    let mut bytes = head + all(&inventory::before_head(spec));
    for (_, layer) in spec.layers.iter().enumerate().filter(|(i, _)| !spec.needs_ffn(*i, false)) {
        // Both lists have the same order.
        let mut left_out = inventory::core(layer, true);
        let needed = inventory::core(layer, false);
        left_out.retain(|part| needed.iter().all(|needed| needed.weight != part.weight));
        bytes += all(&left_out);
        if let Some(moe) = layer.moe() {
            let count = inventory::stored_experts(moe);
            bytes += (0..count).map(|e| all(&inventory::expert(&moe.experts, e))).sum::<u64>();
        }
    }
    bytes
}

/// Memory of the one tensor that is laid out at a time, of those whose numbers do not lie together.
fn laying_out_bytes(spec: &Model, checkpoint: &Checkpoint, logits: bool) -> u64 {
    let all = inventory::tensors(spec).into_iter().map(|(tensor, _)| tensor);
    let own_head = !logits && spec.head != spec.embedding;
    let unread: Vec<String> =
        if own_head { spec.head.stored() } else { Vec::new() }.into_iter().map(|t| t.name).collect();
    let read = all.filter(|tensor| !unread.contains(&tensor.name));
    read.map(|tensor| checkpoint.laying_out_bytes(&tensor.name)).max().unwrap_or(0)
}

/// Bytes in memory at one moment.
struct Phase {
    weights: u64,
    /// The residual stream and other values of all tokens.
    hidden: u64,
    workspace: u64,
}

impl Phase {
    fn total(&self) -> u64 {
        self.weights + self.hidden + self.workspace
    }
}

/// The moments at which memory can peak: embedding, token mixer, dense feed-forward network,
/// experts of a layer, head.
struct Phases<'a> {
    spec: &'a Model,
    plan: &'a BatchPlan,
    args: &'a EstimateArgs,
    /// Loaded size of a weight in bytes.
    size: &'a dyn Fn(&Part) -> usize,
    chunk_layers: usize,
    /// The most bytes of weights that are read ahead.
    queue: usize,
    /// The compute dtype on a GPU, or None on a CPU.
    gpu: Option<ComputeDtype>,
}

impl Phases<'_> {
    fn peak(&self) -> Phase {
        let layers = (0..self.spec.layers.len()).flat_map(|i| [Some(self.mixer(i)), Some(self.ffn(i))]);
        let head = self.args.logits.then(|| self.head());
        let all = layers.chain([Some(self.embedding()), head]).flatten();
        all.max_by_key(Phase::total).expect("the embedding is always there")
    }

    fn tokens(&self) -> usize {
        self.args.num_sequences * self.args.sequence_length
    }

    fn residual(&self) -> u64 {
        (self.tokens() * self.spec.hidden_size * 4) as u64
    }

    /// Number of residual streams, with those of lanes.
    fn streams(&self) -> u64 {
        1 + self.args.lanes as u64
    }

    /// The residual streams, and a copy of one that a change of it makes.
    fn residuals(&self) -> u64 {
        self.residual() * if self.args.lanes == 0 { 1 } else { self.streams() + 1 }
    }

    /// What is kept from layer to layer: the residual stream, embeddings for each layer of the
    /// tokens that occur, and before layer `i` is done the keys and values that it and later ones
    /// borrow, or lend.
    fn carried(&self, i: usize) -> u64 {
        let lenders = self.spec.lenders(i).into_iter().chain(self.spec.lenders(i + 1)).collect::<BTreeSet<_>>();
        let lent = lenders.into_iter().filter_map(|layer| self.spec.kv_widths(layer)).flatten().sum::<usize>();
        self.residuals() + self.layer_embeddings() + self.streams() * (self.tokens() * lent * 4) as u64
    }

    /// The embeddings per layer, in the memory of the host.
    fn layer_embeddings(&self) -> u64 {
        let own = self.spec.layer_embeddings.as_ref().filter(|_| self.gpu.is_none());
        own.map_or(0, |own| (self.tokens().min(own.table.shape[0]) * own.table.shape[1] * 4) as u64)
    }

    /// The weights that a lane makes of these, in f32.
    fn of_lane(&self, parts: &[Part]) -> u64 {
        match self.args.lane_weights {
            true => parts.iter().map(|part| part.elements() as u64 * 4).sum(),
            false => 0,
        }
    }

    /// The norm output of all tokens in f32.
    fn norm_output(&self) -> u64 {
        self.streams() * (self.tokens() * self.spec.hidden_size * 4) as u64
    }

    fn size(&self, parts: &[Part]) -> usize {
        parts.iter().map(self.size).sum()
    }

    /// Everything but the routed experts of `count` layers from layer `i` on.
    fn cores(&self, i: usize, count: usize) -> usize {
        let layers = self.spec.layers.iter().skip(i).take(count);
        layers.map(|layer| self.size(&inventory::core(layer, true))).sum()
    }

    fn embedding(&self) -> Phase {
        if self.gpu.is_some() {
            // The embedding runs on the CPU.
            return Phase { weights: 0, hidden: self.residual(), workspace: 0 };
        }
        let rows = self.tokens().min(self.spec.vocab_size) * self.spec.hidden_size * 4;
        let projecting = self.spec.layer_embeddings.as_ref().map_or(0, |own| self.size(&inventory::parts(own)));
        let hidden = self.residual() + self.layer_embeddings();
        Phase { weights: (rows + projecting) as u64, hidden, workspace: self.residual() }
    }

    fn mixer(&self, i: usize) -> Phase {
        let layer = &self.spec.layers[i];
        let (hidden, positions) = (self.spec.hidden_size, self.args.sequence_length);
        let workspace = layer.mixer.as_ref().map_or(0, |mixer| match self.gpu {
            None => self.plan.mixer_workspace(&mixer.body, hidden, positions),
            Some(_) => {
                let operand = self.operands(&inventory::core(layer, false));
                self.plan.mixer_vram(&mixer.body, hidden, positions, operand)
            }
        });
        let mut phase = Phase {
            weights: self.cores(i, self.chunk_layers) as u64 + self.of_lane(&inventory::core(layer, true)),
            hidden: self.carried(i),
            workspace: workspace as u64,
        };
        if let Some(moe) = layer.moe() {
            // The input of the experts, and the experts that the first sequences have chosen.
            phase.hidden += self.norm_output();
            phase.weights += self.queued_experts(moe);
        }
        phase
    }

    /// Size of the experts that may be read ahead.
    fn queued_experts(&self, moe: &Moe) -> u64 {
        let expert = self.size(&inventory::expert(&moe.experts, 0));
        self.queue.max(expert).min(expert * moe.num_experts) as u64
    }

    fn ffn(&self, i: usize) -> Phase {
        let hidden = self.spec.hidden_size;
        match self.spec.layers[i].ffn.as_ref().map_or(&Ffn::NotNeeded, |ffn| &ffn.body) {
            Ffn::NotNeeded => Phase { weights: 0, hidden: self.carried(i), workspace: 0 },
            Ffn::Dense(mlp) => {
                let inner = mlp.up.weight.shape.iter().product::<usize>() / hidden;
                let rows = (self.plan.sequences * self.args.sequence_length).min(self.plan.ffn_rows(hidden, inner));
                let workspace = match self.gpu {
                    None => self.plan.ffn_workspace(rows, hidden, inner),
                    Some(_) => {
                        let all = self.plan.sequences * self.args.sequence_length * hidden * 4;
                        let operands = self.operands(&inventory::core(&self.spec.layers[i], true));
                        all + ffn_vram(rows, hidden, inner) + operands
                    }
                };
                Phase {
                    weights: self.cores(i, self.chunk_layers) as u64
                        + self.of_lane(&inventory::core(&self.spec.layers[i], true)),
                    hidden: self.carried(i),
                    workspace: workspace as u64,
                }
            }
            Ffn::Moe(moe) => {
                let expert = self.size(&inventory::expert(&moe.experts, 0)) as u64;
                let ahead = self.cores(i + 1, self.chunk_layers - 1) as u64;
                // Routers distribute tokens unevenly: the busiest expert often gets twice the
                // average.
                let rows = (2 * self.tokens() * moe.top_k / moe.num_experts).min(self.tokens());
                let rows = rows.min(self.plan.ffn_rows(hidden, moe.intermediate));
                let workspace = match self.gpu {
                    None => self.plan.ffn_workspace(rows, hidden, moe.intermediate),
                    Some(_) => {
                        let gathered = rows * hidden * 4;
                        gathered
                            + ffn_vram(rows, hidden, moe.intermediate)
                            + self.operands(&inventory::expert(&moe.experts, 0))
                    }
                };
                Phase {
                    weights: expert
                        + self.queued_experts(moe)
                        + ahead
                        + self.of_lane(&inventory::expert(&moe.experts, 0))
                        + self.of_lane(&inventory::core(&self.spec.layers[i], true)),
                    hidden: self.carried(i) + self.norm_output(),
                    workspace: workspace as u64,
                }
            }
        }
    }

    /// On a GPU: the largest weight that is converted to f32 for a product.
    fn operands(&self, parts: &[Part]) -> usize {
        let widened = |part: &Part| {
            let wide = part.elements() * 4;
            if (self.size)(part) < wide { wide } else { 0 }
        };
        match self.gpu {
            Some(ComputeDtype::F32) => parts.iter().map(widened).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn head(&self) -> Phase {
        let width = self.spec.head.shape[1] * 4;
        let block = (HEAD_BLOCK_BYTES / width).clamp(1, self.spec.vocab_size);
        let rows = self.tokens() * self.streams() as usize;
        let logits = match self.gpu {
            // Packed rows, what pieces of logits leave, and of each thread the weights and the
            // logits of a piece.
            None => {
                let of_row = width + block.div_ceil(SMALLEST_PIECE) * LEFT_BY_PIECE;
                let pieces = rayon::current_num_threads() * gemm::seen_bytes(self.spec.head.shape[1]);
                (rows * of_row).min(HEAD_LEFT_BYTES) + pieces
            }
            // The logits as a tensor, and their copy.
            Some(_) => 2 * (rows * block * 4).min(HEAD_BLOCK_BYTES),
        };
        let workspace = (block * width + logits) as u64;
        Phase { weights: 0, hidden: self.residuals() + self.layer_embeddings() + self.norm_output(), workspace }
    }
}

/// Operations of scores and weighted values. Attention is causal, so a query has half of all keys
/// on average, or a window of them.
fn attention_flops(spec: &Model, args: &EstimateArgs) -> f64 {
    let t = args.sequence_length as f64;
    let mixers = spec.layers.iter().filter_map(|layer| layer.mixer.as_ref());
    let per_layer = mixers.map(|mixer| match &mixer.body {
        Mixer::Attention(attention) => {
            let keys = match attention.span {
                Span::All => t / 2.0,
                Span::Window(width) | Span::Chunk(width) => (width as f64).min(t / 2.0),
            };
            2.0 * t * keys * (attention.heads * (attention.head_dim + attention.value_dim)) as f64
        }
        Mixer::DeltaNet(net) => 6.0 * t * (net.value_heads * net.key_dim * net.value_dim) as f64,
        Mixer::GatedConv(_) => 0.0,
        Mixer::Mamba2(mamba) => 5.0 * t * (mamba.heads * mamba.head_dim * mamba.state) as f64,
    });
    per_layer.sum::<f64>() * args.num_sequences as f64
}
