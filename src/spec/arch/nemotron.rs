//! Nemotron-3 and -4 and Minitron (`model_type` "nemotron"). Facts: transformers
//! `modeling_nemotron`; Parmar et al. 2024.
//!
//! LayerNorms multiply by 1 + weight, the feed-forward network has no gate and a squared
//! activation, and half of each head has a rotary embedding.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { partial_rotary_factor: Some(0.5), ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { eps_key: "norm_eps", rms_norm_eps: 1e-5, rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::LayerZeroCentred, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "relu2")?;
    let (attention_bias, mlp_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("mlp_bias", false)?);
    let layers = (0..decoder.layers).map(|i| {
        let attention = decoder.attention(i, attention_bias);
        let prefix = format!("{}mlp.", decoder.layer(i));
        let mlp = Mlp::plain(&prefix, ["up_proj", "down_proj"], decoder.hidden, intermediate, act, mlp_bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("nemotron", layers.collect()))
}
