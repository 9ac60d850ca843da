//! Mistral (`model_type` "mistral"): Mistral 7B, Nemo, Small. Facts: transformers
//! `modeling_mistral`; Jiang et al. 2023.
//!
//! A sliding window, if there is one, applies to every layer.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, span, window_or};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(8), ..LLAMA };
const SLIDING_WINDOW: usize = 4096;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let span = span(window_or(c, SLIDING_WINDOW)?);
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, false);
        attention.span = span;
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("mistral", layers.collect()))
}
