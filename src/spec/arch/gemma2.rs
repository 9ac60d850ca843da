//! Gemma 2 (`model_type` "gemma2"). Facts: transformers `modeling_gemma2`; Gemma Team 2024, "Gemma
//! 2".
//!
//! Norms precede and follow attention and feed-forward network. Scores and logits have soft caps.
//! Every other layer, beginning with the first, has a sliding window.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, GEMMA_NORMS, LLAMA, another_counts, layer_windows, window_or};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { tied: true, num_key_value_heads: Some(4), head_dim: Some(256), ..LLAMA };
const SLIDING_WINDOW: usize = 4096;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &DEFAULTS)?;
    let window = window_or(c, SLIDING_WINDOW)?;
    // This is the key of the first weeks, which only the original code reads.
    match window {
        Some(window) => another_counts(c, "sliding_window_size", "sliding_window", window as f64)?,
        None => c.without_effect(&["sliding_window_size"]),
    }
    let spans = layer_windows(c, decoder.layers, window, |i| i % 2 == 0)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    c.without_effect(&["hidden_act"]);
    let bias = c.bool_or("attention_bias", false)?;
    let scale = c.opt_f64("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5);
    let softcap = c.number_or("attn_logit_softcapping", 50.0)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        (attention.span, attention.scale, attention.softcap) = (spans[i], scale, softcap);
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.sandwich_block(i, GEMMA_NORMS, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    let mut model = decoder.model("gemma2", layers.collect());
    model.embedding_factor = (decoder.hidden as f64).sqrt();
    model.logit_softcap = c.number_or("final_logit_softcapping", 30.0)?;
    Ok(model)
}
