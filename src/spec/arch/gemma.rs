//! The first generation of Gemma, and CodeGemma (`model_type` "gemma"). Facts: transformers
//! `modeling_gemma`; Gemma Team 2024.
//!
//! Norms multiply by 1 + weight, embeddings are multiplied by the square root of their width, and
//! head and embedding are tied.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::{Activation, NormKind};

const DEFAULTS: Defaults = Defaults { tied: true, num_key_value_heads: Some(16), head_dim: Some(256), ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    // Releases with "gelu" mean the form with tanh, as GemmaConfig does. Some repeat it under
    // another key.
    let act = match activation(c, "hidden_act", "gelu_pytorch_tanh")? {
        Activation::GeluErf => Activation::GeluTanh,
        other => other,
    };
    c.only("hidden_activation", "gelu_pytorch_tanh".into())?;
    let bias = c.bool_or("attention_bias", false)?;
    let layers = (0..decoder.layers).map(|i| {
        let attention = decoder.attention(i, bias);
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    let mut model = decoder.model("gemma", layers.collect());
    model.embedding_factor = (decoder.hidden as f64).sqrt();
    Ok(model)
}
