//! Experts that a checkpoint holds fused, one tensor for all of a layer, as transformers 5 keeps them in memory and writes them
//! with `save_original_format=False`: they are read as the experts of their own that an architecture names.
//!
//! `experts.gate_up_proj` is [experts, 2 × intermediate, hidden], in each expert the gate's rows first, and
//! `experts.down_proj` is [experts, hidden, intermediate]: every expert's matrices lie in one piece in the file. Facts:
//! transformers 5 `conversion_mapping.py`.

use super::checkpoint::Checkpoint;
use crate::error::Result;
use crate::spec::{Experts, Layer, Mlp, Model, Moe, TensorSpec};

/// Mixtral's releases call a mixture so, and transformers 5 as all others.
const OWN_BLOCK: &str = "block_sparse_moe.";
const BLOCK: &str = "mlp.";

/// Gives the experts' matrices the names that the model has for them, where the files hold them fused.
///
/// # Errors
/// `corrupt` where a fused tensor has another shape than the config says.
pub fn separate(checkpoint: &mut Checkpoint, model: &Model) -> Result<()> {
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

/// Cuts a fused tensor into the matrices of `experts`, one below the other in this order.
fn divide<'a>(
    checkpoint: &mut Checkpoint,
    fused: &str,
    experts: &'a [Mlp],
    matrices: impl Fn(&'a Mlp) -> Vec<&'a TensorSpec>,
) -> Result<()> {
    let parts: Vec<&TensorSpec> = experts.iter().flat_map(matrices).collect();
    let rows = parts.iter().map(|part| part.shape[0]).sum::<usize>() / experts.len().max(1);
    let columns = parts.first().map_or(0, |part| part.shape[1]);
    checkpoint.expect(fused, &[experts.len(), rows, columns])?;
    checkpoint.divide(fused, &parts);
    Ok(())
}
