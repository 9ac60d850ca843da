//! GLM-4.7-Flash (`model_type` "glm4_moe_lite"). Facts: transformers `modeling_glm4_moe_lite`.
//!
//! DeepSeek-V3's attention and mixtures of experts. Only `mlp_layer_types` determines the dense
//! layers; by default it is the first.

use super::decoder::{Defaults, LLAMA};
use super::deepseek_v3;
use super::experts::{Grouped, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::spec::Model;
use crate::spec::config::Config;

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, ..LLAMA };
const ROUTER: Grouped = Grouped { factor: 1.8, ..ONE_GROUP };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.without_effect(&["first_k_dense_replace"]);
    deepseek_v3::family(c, names, "glm4_moe_lite", 1, &ROUTER, DEFAULTS)
}
