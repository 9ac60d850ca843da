//! DeepSeek-V3 and R1 (`model_type` "deepseek_v3"). Facts: transformers `modeling_deepseek_v3`;
//! DeepSeek-AI 2024.
//!
//! Multi-head latent attention. The first layers are dense. The others have experts, chosen by
//! sigmoid scores plus a correction bias within the best groups, and shared experts. Layers for
//! multi-token prediction are not part of a forward pass.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Corrected, Grouped, ONE_GROUP};
use super::latent::{self, LatentHeads};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Mixer, Model};
use crate::vocabulary::NormKind;

const ROUTER: Grouped = Grouped { groups: 8, top_groups: 4, factor: 2.5, ..ONE_GROUP };
/// Number of dense layers at the start.
const DENSE: usize = 3;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let dense = c.opt_usize("first_k_dense_replace")?.unwrap_or(DENSE);
    family(c, names, "deepseek_v3", dense, &ROUTER, LLAMA)
}

/// A model of this structure, with the defaults of its class except for the rope. Its first `dense`
/// layers are dense unless `mlp_layer_types` says otherwise.
///
/// # Errors
/// If the config has unsupported values.
pub(super) fn family(
    c: &Config,
    names: &dyn Names,
    model_type: &str,
    dense: usize,
    router: &Grouped,
    usual: Defaults,
) -> Result<Model> {
    let defaults = Defaults { rope: RopeDefaults { pairs: latent::pairs(c)?, ..rope_config::DEFAULTS }, ..usual };
    let (heads, turning) = LatentHeads::from_config(c, &defaults.rope)?;
    let decoder = Decoder::with_heads(c, names, NormKind::Rms, &defaults, turning)?;
    c.without_effect(&["ep_size", "num_nextn_predict_layers", "num_mtp_layers"]);
    c.only("mlp_bias", false.into())?;
    c.only("scoring_func", "sigmoid".into())?;
    c.only("topk_method", "noaux_tc".into())?;
    c.only("moe_layer_freq", 1.into())?;
    let networks = Corrected::from_config(c, (decoder.hidden, decoder.layers), router)?;
    let sparse = experts::behind_dense(c, decoder.layers, dense)?;
    let layers = (0..decoder.layers).map(|i| {
        let ffn = networks.ffn(&format!("{}mlp.", decoder.layer(i)), sparse[i]);
        decoder.block(i, Mixer::Attention(Box::new(heads.attention(&decoder, i))), ffn)
    });
    Ok(decoder.model(model_type, layers.collect()))
}
