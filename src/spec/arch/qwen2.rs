//! Qwen2, Qwen2.5 and QwQ (`model_type` "qwen2"), dense. Facts: transformers `modeling_qwen2`;
//! Qwen2 technical report 2024.
//!
//! Only queries, keys and values have biases. A sliding window applies as in Qwen3: to the layers
//! that `layer_types` names or, without that list, from layer `max_window_layers` on.

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
const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(32), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let window = switched_window(c)?;
    let first = c.opt_usize("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS);
    let windows = layer_windows(c, decoder.layers, window, |i| window.is_some() && i >= first)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, true);
        attention.out.bias = None;
        attention.span = windows[i];
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("qwen2", layers.collect()))
}
