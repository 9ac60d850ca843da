//! Fused experts: a checkpoint may store one tensor for all experts of a layer, as transformers 5
//! keeps them in memory and writes them with `save_original_format=False`. They are split into the
//! separate experts that an architecture names.
//!
//! The same form calls some other tensors of mixtures differently, too.
//!
//! `experts.gate_up_proj` is [experts, 2 × intermediate, hidden], with the gate's rows first in
//! each expert, and `experts.down_proj` is [experts, hidden, intermediate]. Experts
//! without gates have `experts.up_proj`. Every expert's matrices
//! are contiguous in the file. Facts: transformers 5 `conversion_mapping.py`.

use super::checkpoint::Checkpoint;
use super::strided;
use crate::error::Result;
use crate::spec::inventory::{self, Part};
use crate::spec::{Experts, Mlp, Model, TensorSpec};

/// The name of a mixture in Mixtral's releases. transformers 5 uses the general one.
const OWN_BLOCK: &str = "block_sparse_moe.";
const BLOCK: &str = "mlp.";

/// Names in releases, and those of the same tensors in transformers' memory: of Mixtral, MiniMax,
/// Phi-3.5-MoE, Hy3, ERNIE and Granite (transformers 5 `conversion_mapping.py`).
const IN_MEMORY: &[(&str, &str)] = &[
    (OWN_BLOCK, BLOCK),
    ("block_sparse_moe.gate.", "mlp.router."),
    ("router.gate.", "gate."),
    ("expert_bias", "e_score_correction_bias"),
    ("shared_mlp.", "shared_experts."),
    ("moe_statics.", "gate.moe_statics."),
    ("router.layer.", "router."),
    ("input_linear.weight", "experts.gate_up_proj"),
    ("output_linear.weight", "experts.down_proj"),
];

/// Splits fused experts in the files and gives the tensors of mixtures the model's names.
///
/// # Errors
/// `corrupt` if a tensor under another name does not have the config's shape.
pub(super) fn separate(checkpoint: &mut Checkpoint, model: &Model) -> Result<()> {
    for layer in &model.layers {
        let Some(moe) = layer.moe() else { continue };
        for part in inventory::core(layer, true) {
            name(checkpoint, &part)?;
        }
        match &*moe.experts {
            Experts::Separate(experts) => divide_all(checkpoint, experts)?,
            Experts::Stacked(_) => {
                inventory::expert(&moe.experts, 0).iter().try_for_each(|part| name(checkpoint, part))?
            }
        }
    }
    Ok(())
}

/// Gives a tensor its name in releases, if it is in the files under that of transformers' memory.
fn name(checkpoint: &mut Checkpoint, part: &Part) -> Result<()> {
    for tensor in part.stored() {
        if checkpoint.contains(&tensor.name) {
            continue;
        }
        let others = IN_MEMORY.iter().filter(|(own, _)| tensor.name.contains(own));
        let mut others = others.map(|(own, other)| tensor.name.replacen(own, other, 1));
        if let Some(other) = others.find(|other| checkpoint.contains(other)) {
            checkpoint.expect(&other, &tensor.shape)?;
            checkpoint.call(&other, tensor.name);
        }
    }
    Ok(())
}

fn divide_all(checkpoint: &mut Checkpoint, experts: &[Mlp]) -> Result<()> {
    let Some(first) = experts.first() else { return Ok(()) };
    let Some((prefix, _)) = first.down.weight.name.split_once("experts.0.") else { return Ok(()) };
    let blocks = prefix.strip_suffix(OWN_BLOCK).map(|layer| format!("{layer}{BLOCK}"));
    let up = if first.gate.is_some() { "gate_up_proj" } else { "up_proj" };
    for prefix in blocks.as_deref().into_iter().chain([prefix]) {
        let [up, down] = [up, "down_proj"].map(|name| format!("{prefix}experts.{name}"));
        let present = |mlp: &Mlp| checkpoint.contains(&mlp.up.weight.name);
        if checkpoint.contains(&up) && checkpoint.contains(&down) && !experts.iter().any(present) {
            divide(checkpoint, &up, experts, |mlp| {
                mlp.gate.iter().chain([&mlp.up]).map(|linear| &linear.weight).collect()
            })?;
            divide(checkpoint, &down, experts, |mlp| vec![&mlp.down.weight])?;
        }
    }
    Ok(())
}

/// Splits a fused tensor into the matrices of `experts`, which follow each other in this order.
fn divide<'a>(
    checkpoint: &mut Checkpoint,
    fused: &str,
    experts: &'a [Mlp],
    matrices: impl Fn(&'a Mlp) -> Vec<&'a TensorSpec>,
) -> Result<()> {
    let parts: Vec<&TensorSpec> = experts.iter().flat_map(matrices).collect();
    let rows = parts.iter().map(|part| part.shape[0]).sum::<usize>() / experts.len().max(1);
    let columns = parts.first().map_or(0, |part| part.shape[1]);
    let whole = checkpoint.expect(fused, &[experts.len(), rows, columns])?;
    strided::check_together(whole, &checkpoint.place(whole))?;
    checkpoint.divide(fused, &parts);
    Ok(())
}
