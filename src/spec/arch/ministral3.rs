//! Ministral 3 and Devstral 2 (`model_type` "ministral3", inside "mistral3"). Facts: transformers
//! `modeling_ministral3`; Mistral AI 2025.
//!
//! Llama with YaRN and queries that grow with their position (`llama_4_scaling_beta`).

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, sliding_window, span};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model, QueryGrowth};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults {
    read_elsewhere: &["llama_4_scaling_beta", "max_position_embeddings"],
    parameters: Some(
        r#"{"rope_type": "yarn", "rope_theta": 1e6, "factor": 16, "original_max_position_embeddings": 16384, "beta_fast": 32,
            "beta_slow": 1, "mscale": 1, "mscale_all_dim": 1, "llama_4_scaling_beta": 0.1}"#,
    ),
    ..rope_config::DEFAULTS
};
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), head_dim: Some(128), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let span = span(sliding_window(c)?);
    let beta = rope_config::parameter(c, &ROPE, "llama_4_scaling_beta")?;
    let growth = QueryGrowth { beta, original: rope_config::original(c, &ROPE)?, offset: 0 };
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, false);
        (attention.span, attention.growth) = (span, Some(growth));
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("ministral3", layers.collect()))
}
