//! Fused experts: a checkpoint may store one tensor for all experts of a layer, as transformers 5
//! keeps them in memory and writes them with `save_original_format=False`. They are split into the
//! separate experts that an architecture names.
//!
//! `experts.gate_up_proj` is [experts, 2 × intermediate, hidden], with the gate's rows first in
//! each expert, and `experts.down_proj` is [experts, hidden, intermediate]. Every expert's matrices
//! are contiguous in the file. Facts: transformers 5 `conversion_mapping.py`.

use super::checkpoint::Checkpoint;
use super::strided;
use crate::error::Result;
use crate::spec::{Experts, Layer, Mlp, Model, Moe, TensorSpec};

/// The name of a mixture in Mixtral's releases. transformers 5 uses the general one.
const OWN_BLOCK: &str = "block_sparse_moe.";
const BLOCK: &str = "mlp.";

/// Splits fused experts in the files and gives their matrices the model's names.
///
/// # Errors
/// `corrupt` if a fused tensor does not have the config's shape.
pub(super) fn separate(checkpoint: &mut Checkpoint, model: &Model) -> Result<()> {
    model.layers.iter().filter_map(Layer::moe).try_for_each(|moe| layer_of(checkpoint, moe))
}

fn layer_of(checkpoint: &mut Checkpoint, moe: &Moe) -> Result<()> {
    let Experts::Separate(experts) = &*moe.experts else { return Ok(()) };
    let router = &moe.router.linear.weight;
    let Some(prefix) = router.name.strip_suffix("gate.weight") else { return Ok(()) };
    let blocks = prefix.strip_suffix(OWN_BLOCK).map(|layer| format!("{layer}{BLOCK}"));
    for prefix in blocks.as_deref().into_iter().chain([prefix]) {
        let gate = format!("{prefix}gate.weight");
        if !checkpoint.contains(&router.name) && checkpoint.contains(&gate) {
            checkpoint.expect(&gate, &router.shape)?;
            checkpoint.divide(&gate, &[router]);
        }
        let [gate_up, down] = ["gate_up_proj", "down_proj"].map(|name| format!("{prefix}experts.{name}"));
        let present = |mlp: &Mlp| checkpoint.contains(&mlp.up.weight.name);
        if checkpoint.contains(&gate_up) && checkpoint.contains(&down) && !experts.iter().any(present) {
            divide(checkpoint, &gate_up, experts, |mlp| {
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
