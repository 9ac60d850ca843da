//! StarCoder2 (`model_type` "starcoder2"). Facts: transformers `modeling_starcoder2`; Lozhkov et
//! al. 2024.
//!
//! LayerNorms, biases everywhere (`use_bias`), a feed-forward network without a gate, and a sliding
//! window in every layer.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, sliding_window, span};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults =
    Defaults { eps_key: "norm_epsilon", rms_norm_eps: 1e-5, tied: true, num_key_value_heads: Some(2), ..LLAMA };
const UNREAD: &[&str] = &[
    "layer_norm_epsilon",
    "attention_softmax_in_fp32",
    "scale_attention_softmax_in_fp32",
    "scale_attn_weights",
    "embedding_dropout",
    "residual_dropout",
];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Layer, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "gelu_pytorch_tanh")?;
    let bias = c.bool_or("use_bias", true)?;
    let span = span(sliding_window(c)?);
    c.only("mlp_type", "default".into())?;
    c.only("norm_type", "layer_norm".into())?;
    c.without_effect(UNREAD);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.span = span;
        let prefix = format!("{}mlp.", decoder.layer(i));
        let mlp = Mlp::plain(&prefix, ["c_fc", "c_proj"], decoder.hidden, intermediate, act, bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("starcoder2", layers.collect()))
}
