//! GLM-5 (`model_type` "glm_moe_dsa"). Facts: transformers `modeling_glm_moe_dsa`.
//!
//! DeepSeek-V3.2's attention, with indexers that some layers share, and mixtures with one group of
//! experts.

use super::decoder::{Defaults, LLAMA};
use super::deepseek_v3;
use super::deepseek_v32::indexed;
use super::experts::{Grouped, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::spec::Model;
use crate::spec::config::Config;

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, ..LLAMA };
const ROUTER: Grouped = Grouped { factor: 2.5, ..ONE_GROUP };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.only("rope_interleave", true.into())?;
    // Properties of the indexers, which have no effect because all layers use all keys.
    c.without_effect(&["indexer_types", "index_topk_pattern", "index_topk_freq", "index_skip_topk_offset"]);
    c.without_effect(&["index_share_for_mtp_iteration", "moe_router_dtype"]);
    let dense = c.opt_usize("first_k_dense_replace")?.unwrap_or(3);
    indexed(c, deepseek_v3::family(c, names, "glm_moe_dsa", dense, &ROUTER, DEFAULTS)?)
}
