//! DeepSeek-V3.2 (`model_type` "deepseek_v32"). Facts: transformers `modeling_deepseek_v32`;
//! DeepSeek-AI 2025.
//!
//! DeepSeek-V3 with an indexer in each layer that chooses `index_topk` keys for a query. Sequences
//! up to that length use all keys, so that the indexer's weights are not read. Longer sequences are
//! rejected.

use super::decoder::LLAMA;
use super::deepseek_v3;
use super::experts::{Grouped, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{MaxPositions, Model};

const ROUTER: Grouped = Grouped { groups: 8, top_groups: 4, factor: 2.5, ..ONE_GROUP };
/// Names of a layer with an indexer, and of one without.
const KINDS: [&str; 3] = ["indexed_attention", "deepseek_sparse_attention", "full_attention"];
/// The default of `index_topk`.
const INDEX_TOPK: usize = 2048;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.only("rope_interleave", true.into())?;
    let dense = c.opt_usize("first_k_dense_replace")?.unwrap_or(3);
    indexed(c, deepseek_v3::family(c, names, "deepseek_v32", dense, &ROUTER, LLAMA)?)
}

/// The model with its indexer, which limits the length of sequences.
///
/// # Errors
/// If `index_topk` is not a size.
pub(super) fn indexed(c: &Config, mut model: Model) -> Result<Model> {
    c.without_effect(&["index_head_dim", "index_n_heads", "indexer_rope_interleave"]);
    // transformers 5 writes what every layer is.
    if let Some(other) =
        c.opt_list_str("layer_types")?.into_iter().flatten().find(|kind| !KINDS.contains(&kind.as_str()))
    {
        let problem = format!("has \"{}\"; supported are {}", shown(&other), KINDS.join(", "));
        return Err(c.uncomputed("layer_types", &problem));
    }
    let positions = if c.has("index_topk") { c.size("index_topk")? } else { INDEX_TOPK };
    let why = "for longer ones an indexer chooses the keys that a query sees, and that is not computed";
    model.max_positions = Some(MaxPositions { positions, why });
    Ok(model)
}
