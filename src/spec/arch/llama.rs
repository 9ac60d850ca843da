//! Llama (`model_type` "llama"): the dense control. Facts: transformers `modeling_llama`.

use super::activation::activation;
use super::decoder::{Decoder, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &LLAMA)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let (attention_bias, mlp_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("mlp_bias", false)?);
    let layers = (0..decoder.layers).map(|i| {
        let attention = decoder.attention(i, attention_bias);
        let prefix = format!("{}mlp.", decoder.layer(i));
        let mlp = Mlp::gated(&prefix, decoder.hidden, intermediate, act, mlp_bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("llama", layers.collect()))
}
