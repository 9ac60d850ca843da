//! Seed-OSS (`model_type` "seed_oss"). Facts: transformers `modeling_seed_oss`; ByteDance Seed
//! 2025.
//!
//! Llama with heads whose total width differs from the hidden size, and a separate key for the bias
//! of each kind of projection.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model, TensorSpec};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(8), head_dim: Some(128), ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let (bias, out_bias) = (c.bool_or("attention_bias", true)?, c.bool_or("attention_out_bias", false)?);
    let mlp_bias = c.bool_or("mlp_bias", false)?;
    c.without_effect(&["residual_dropout"]);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        let out = format!("{}self_attn.o_proj.bias", decoder.layer(i));
        attention.out.bias = out_bias.then(|| TensorSpec::new(out, [decoder.hidden]));
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, mlp_bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("seed_oss", layers.collect()))
}
