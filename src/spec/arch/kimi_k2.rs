//! Kimi K2 (`model_type` "kimi_k2", also inside "kimi_k25"). Facts: transformers uses
//! `modeling_deepseek_v3`; Kimi Team 2025.

use super::decoder::LLAMA;
use super::deepseek_v3;
use super::experts::{Grouped, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::spec::Model;
use crate::spec::config::Config;

/// The defaults of the class `DeepseekV3Config`, to which transformers converts the config.
const ROUTER: Grouped = Grouped { groups: 8, top_groups: 4, factor: 2.5, ..ONE_GROUP };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let dense = c.opt_usize("first_k_dense_replace")?.unwrap_or(3);
    deepseek_v3::family(c, names, "kimi_k2", dense, &ROUTER, LLAMA)
}
