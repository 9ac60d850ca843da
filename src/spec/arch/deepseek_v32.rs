//! DeepSeek-V3.2 (`model_type` "deepseek_v32"). Facts: transformers `modeling_deepseek_v32`; DeepSeek-AI 2025.
//!
//! DeepSeek-V3 with an indexer in each layer that chooses `index_topk` keys for a query: up to that many positions those are all,
//! and its weights are not read. Longer sequences are refused.

use super::decoder::LLAMA;
use super::deepseek_v3;
use super::experts::{Grouped, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{MaxPositions, Model};

const ROUTER: Grouped = Grouped { groups: 8, top_groups: 4, factor: 2.5, ..ONE_GROUP };
/// Keys that an indexer chooses where the config does not say.
const INDEX_TOPK: usize = 2048;

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.only("rope_interleave", true.into())?;
    let dense = c.opt_usize("first_k_dense_replace")?.unwrap_or(3);
    indexed(c, deepseek_v3::family(c, names, "deepseek_v32", dense, &ROUTER, LLAMA)?)
}

/// The model with an indexer, as far as it has nothing to choose.
///
/// # Errors
/// When `index_topk` is no size.
pub fn indexed(c: &Config, mut model: Model) -> Result<Model> {
    c.without_effect(&["index_head_dim", "index_n_heads", "indexer_rope_interleave"]);
    let positions = if c.has("index_topk") { c.size("index_topk")? } else { INDEX_TOPK };
    let why = "for longer ones an indexer chooses the keys that a query sees, and that is not computed";
    model.max_positions = Some(MaxPositions { positions, why });
    Ok(model)
}
