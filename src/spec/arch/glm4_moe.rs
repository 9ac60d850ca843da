//! GLM-4.5 (`model_type` "glm4_moe"). Facts: transformers `modeling_glm4_moe`; GLM-4.5 technical
//! report 2025.
//!
//! The first layers are dense. Experts are chosen by sigmoid scores plus a correction bias, within
//! the best groups of experts, and weighted by the scores alone. Shared experts are added.
//! `attention_bias` does not apply to the output projection. The additional layer for multi-token
//! prediction in checkpoints is not part of a forward pass.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Corrected, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Mixer, Model};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { partial_rotary_factor: Some(0.5), ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    let qk_norm = c.bool_or("use_qk_norm", false)?;
    let networks = Corrected::from_config(c, (decoder.hidden, decoder.layers), &ONE_GROUP)?;
    let dense_layers = c.opt_usize("first_k_dense_replace")?.unwrap_or(1);
    let sparse = experts::behind_dense(c, decoder.layers, dense_layers)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.out.bias = None;
        attention.qk_norm = qk_norm.then(|| decoder.qk_norm(i, true));
        let ffn = networks.ffn(&format!("{}mlp.", decoder.layer(i)), sparse[i]);
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("glm4_moe", layers.collect()))
}
