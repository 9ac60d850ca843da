//! What an analysis will need in bytes and operations, from the spec alone.
//!
//! The same lists and the same cut drive the forward pass (`inventory`, `workspace`), so the estimate is of what it does.

use std::path::Path;

use candle_core::DType;

use super::arch::{self, Names, Released};
use super::checkpoint::Checkpoint;
use super::forward::layer_resident_bytes;
use super::inventory::{self, Role};
use super::open::read_config;
use super::reader::resident_bytes;
use super::spec::{Experts, Ffn, Mixer, Model, Tensor};
use super::workspace::Cut;
use crate::error::Result;
use crate::record::{ComputeDtype, Estimate, EstimateArgs, LoadArgs};

/// `folder` holds config.json and, for exact sizes, the weights.
pub fn estimate(folder: &Path, model: &LoadArgs, args: &EstimateArgs) -> Result<Estimate> {
    let config = read_config(folder)?;
    let checkpoint = Checkpoint::open(folder).ok();
    let names: &dyn Names = match &checkpoint {
        Some(checkpoint) => checkpoint,
        None => &Released,
    };
    let spec = arch::model(&config, names)?;
    let stored = |tensor: &Tensor, role: Option<Role>| {
        let entry = checkpoint.as_ref().and_then(|checkpoint| checkpoint.entry(&tensor.name));
        entry.map_or_else(|| inventory::released_bytes(tensor, role), |entry| entry.bytes)
    };
    let (mut parameters, mut download) = (0, 0);
    for (tensor, role) in inventory::tensors(&spec) {
        parameters += inventory::parameters(&tensor);
        download += stored(&tensor, role);
    }
    let skipped = if args.logits { 0 } else { unread(&spec, &stored) };
    let dtype = match model.dtype {
        ComputeDtype::F32 => DType::F32,
        ComputeDtype::Bf16 => DType::BF16,
    };
    let tokens = (args.num_sequences * args.sequence_length) as u64;
    let hidden = spec.hidden_size as u64;
    let cut = Cut::new(&spec, args.num_sequences, args.sequence_length, dtype, args.memory_budget)?;
    let moe = spec.layers.iter().any(|layer| matches!(layer.ffn, Ffn::Moe(_)));
    let hidden_bytes = tokens * hidden * (4 + if moe { dtype.size_in_bytes() as u64 } else { 0 });
    let layer_bytes = spec.layers.iter().map(|layer| layer_resident_bytes(layer, dtype)).max().unwrap_or(0) as u64;
    let resident_weight_bytes = resident(&spec, dtype, model.chunk_layers) as u64;
    let norms = 2 * spec.layers.len() as u64;
    // Levels of every position, and the extremes of both folds.
    let tap_bytes = tokens * hidden + norms * args.num_sequences as u64 * hidden * 16;
    let workspace_bytes = cut.workspace(&spec, args.num_sequences, args.sequence_length, dtype) as u64;
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
        resident_weight_bytes,
        hidden_bytes,
        tap_bytes,
        workspace_bytes,
        total_bytes: resident_weight_bytes + hidden_bytes + tap_bytes + workspace_bytes,
        flops: 2.0 * tokens as f64 * active_parameters(&spec) as f64 + attention_flops(&spec, args),
    })
}

/// Stored bytes that an analysis without logits leaves out: the head, the final norm, the last layer's FFN.
fn unread(spec: &Model, stored: &impl Fn(&Tensor, Option<Role>) -> u64) -> u64 {
    let all = |parts: &[inventory::Part]| -> u64 {
        let of = |part: &inventory::Part| part.tensors().into_iter().map(|t| stored(t, Some(part.role()))).sum::<u64>();
        parts.iter().map(of).sum()
    };
    let head = if spec.head == spec.embedding { 0 } else { stored(&spec.head, None) };
    let mut bytes = head + all(&inventory::final_norm(spec));
    if let Some(last) = spec.layers.last() {
        let (with, without) = (inventory::core(last, true), inventory::core(last, false));
        bytes += all(&with[without.len()..]);
        if let Ffn::Moe(moe) = &last.ffn {
            let count = if matches!(moe.experts, Experts::Separate(_)) { moe.num_experts } else { 1 };
            bytes += (0..count).map(|e| all(&inventory::expert(&moe.experts, e))).sum::<u64>();
        }
    }
    bytes
}

/// Weights in memory at once: the core at work with those read ahead, or one expert at work with the queue full.
fn resident(spec: &Model, dtype: DType, chunk_layers: usize) -> usize {
    let size = |parts: &[inventory::Part]| parts.iter().map(|part| resident_bytes(part, dtype)).sum::<usize>();
    let cores: Vec<usize> = spec.layers.iter().map(|layer| size(&inventory::core(layer, true))).collect();
    let chunk = chunk_layers.max(1);
    let in_core = cores.windows(chunk.min(cores.len())).map(|window| window.iter().sum::<usize>()).max().unwrap_or(0);
    let largest = spec.layers.iter().map(|layer| layer_resident_bytes(layer, dtype)).max().unwrap_or(0);
    let in_experts = spec.layers.iter().filter_map(|layer| match &layer.ffn {
        Ffn::Dense(_) => None,
        Ffn::Moe(moe) => {
            let one = size(&inventory::expert(&moe.experts, 0));
            let queue = super::forward::read_ahead(layer_resident_bytes(layer, dtype), chunk);
            let ahead = cores.iter().max().unwrap_or(&0) * (chunk - 1);
            Some((one + queue + ahead).min(largest + ahead))
        }
    });
    in_core.max(in_experts.max().unwrap_or(0))
}

/// Weights that one token multiplies with, without embeddings and head.
fn active_parameters(spec: &Model) -> u64 {
    let elements = |parts: &[inventory::Part]| parts.iter().map(|part| part.elements() as u64).sum::<u64>();
    let layer = |layer: &super::spec::Layer| {
        let experts = match &layer.ffn {
            Ffn::Dense(_) => 0,
            Ffn::Moe(moe) => moe.top_k as u64 * elements(&inventory::expert(&moe.experts, 0)),
        };
        elements(&inventory::core(layer, true)) + experts
    };
    spec.layers.iter().map(layer).sum()
}

/// Scores and weighted values; causal, so half of all pairs, or a window's worth.
fn attention_flops(spec: &Model, args: &EstimateArgs) -> f64 {
    let t = args.sequence_length as f64;
    let per_layer = spec.layers.iter().map(|layer| match &layer.mixer {
        Mixer::Attention(attention) => {
            let keys = attention.window.map_or(t / 2.0, |window| (window as f64).min(t / 2.0));
            4.0 * t * keys * (attention.heads * attention.head_dim) as f64
        }
        Mixer::DeltaNet(net) => 6.0 * t * (net.value_heads * net.key_dim * net.value_dim) as f64,
    });
    per_layer.sum::<f64>() * args.num_sequences as f64
}
