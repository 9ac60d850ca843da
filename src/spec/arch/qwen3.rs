//! Qwen3 (`model_type` "qwen3"), dense. Facts: transformers `modeling_qwen3`; Qwen3 technical
//! report 2025.
//!
//! Query and key norms are per head. A sliding window applies to the layers that `layer_types`
//! names or, without that list, from layer `max_window_layers` on.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, MAX_WINDOW_LAYERS, layer_windows, switched_window};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults =
    RopeDefaults { layer_types: &["full_attention", "sliding_attention"], ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(32), head_dim: Some(128), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    let window = switched_window(c)?;
    let first = c.opt_usize("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS);
    let windows = layer_windows(c, decoder.layers, window, |i| window.is_some() && i >= first)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        attention.span = windows[i];
        let prefix = format!("{}mlp.", decoder.layer(i));
        let mlp = Mlp::gated(&prefix, decoder.hidden, intermediate, act, false);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("qwen3", layers.collect()))
}
