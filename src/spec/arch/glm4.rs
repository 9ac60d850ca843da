//! GLM-4-0414 and GLM-Z1 (`model_type` "glm4"), dense. Facts: transformers `modeling_glm4`; Team
//! GLM 2024.
//!
//! Norms precede and follow attention and feed-forward network. The first half of each head has a
//! rotary embedding of adjacent pairs. `attention_bias` does not apply to the output projection.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::{NormKind, Pairs};

const ROPE: RopeDefaults =
    RopeDefaults { partial_rotary_factor: Some(0.5), pairs: Pairs::Adjacent, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1.5625e-7, num_key_value_heads: Some(2), head_dim: Some(128), rope: ROPE, ..LLAMA };
const NORMS: [&str; 4] =
    ["input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let bias = c.bool_or("attention_bias", true)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.out.bias = None;
        let mlp = Mlp::gate_up(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act);
        decoder.sandwich_block(i, NORMS, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("glm4", layers.collect()))
}
