//! SmolLM3 (`model_type` "smollm3"). Facts: transformers `modeling_smollm3`; Yang et al. 2025,
//! "RoPE to NoPE and back again".
//!
//! Llama in which every fourth layer has no rotary embedding: those with 0 in `no_rope_layers`.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, layer_windows, sliding_window};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { theta: 2e6, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { tied: true, num_key_value_heads: Some(4), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let rotates = rotates(c, decoder.layers)?;
    let used = c.bool_or("use_sliding_window", false)?;
    let window = sliding_window(c)?.filter(|_| used);
    let spans = layer_windows(c, decoder.layers, window, |i| window.is_some() && !rotates[i])?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let (attention_bias, mlp_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("mlp_bias", false)?);
    c.without_effect(&["max_window_layers"]);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, attention_bias);
        attention.span = spans[i];
        attention.rope = attention.rope.filter(|_| rotates[i]);
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, mlp_bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("smollm3", layers.collect()))
}

/// Whether each layer has a rotary embedding: its number in `no_rope_layers` is not 0.
fn rotates(c: &Config, layers: usize) -> Result<Vec<bool>> {
    let every = c.opt_usize("no_rope_layer_interval")?.unwrap_or(4).max(1);
    match c.opt_list_usize("no_rope_layers")? {
        None => Ok((0..layers).map(|i| (i + 1) % every != 0).collect()),
        Some(list) if list.len() == layers => Ok(list.into_iter().map(|rotates| rotates != 0).collect()),
        Some(list) => Err(c.wrong("no_rope_layers", &format!("has {} entries for {layers} layers", list.len()))),
    }
}
