//! Checks from the headers of the files whether the weights of a pass can be read, before anything
//! is read or paid for.

use super::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::spec::inventory::{self, Part};
use crate::spec::{Model, TensorSpec};

/// Checks that each weight exists, has the shape that the config says, and has a type that can be
/// read. With `logits` all weights are needed. Otherwise the head, the weights before it, and the
/// FFN of the last layer are not.
///
/// # Errors
/// `not_found` for a weight that is missing, `corrupt` for a wrong shape, `unsupported` for a type
/// that is not read.
pub fn check(checkpoint: &Checkpoint, model: &Model, logits: bool) -> Result<()> {
    let rows =
        |weight: &TensorSpec| weight.stored().iter().try_for_each(|tensor| checkpoint.readable(tensor).map(drop));
    let all = |parts: &[Part]| parts.iter().try_for_each(|part| rows(&part.weight));
    rows(&model.embedding)?;
    model.positions.iter().try_for_each(|positions| rows(&positions.weight))?;
    model.project_in.iter().try_for_each(|linear| all(&inventory::projection(linear)))?;
    model.embedding_norm.iter().try_for_each(|norm| all(&inventory::embedding_norm(norm)))?;
    model.layer_embeddings.iter().try_for_each(|own| rows(&own.table).and_then(|()| all(&inventory::parts(own))))?;
    for (i, layer) in model.layers.iter().enumerate() {
        let ffn = model.needs_ffn(i, logits);
        all(&inventory::core(layer, ffn))?;
        if let (Some(moe), true) = (layer.moe(), ffn) {
            let count = inventory::stored_experts(moe);
            (0..count).try_for_each(|expert| all(&inventory::expert(&moe.experts, expert)))?;
        }
    }
    if !logits {
        return Ok(());
    }
    if checkpoint.entry(&model.head.stored()[0].name).is_none() {
        return Err(Error::not_found(format!(
            "{}: there is no `{}`, and config.json does not tie it to the embedding: the files hold a base model, which has no logits",
            checkpoint.place, model.head.name
        ))
        .hint("norm outputs need no logits: leave `logits: true` out; or use the model's release with its head"));
    }
    all(&inventory::before_head(model))?;
    rows(&model.head)
}
