//! Granite 3 (`model_type` "granite"), dense. Facts: transformers `modeling_granite`; IBM 2024,
//! "Granite 3.0 Language Models".
//!
//! Llama with four factors: of embeddings, of scores in place of the root of the head's width, of
//! contributions to the residual stream, and of logits.

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
    let factor = |key: &str| Ok(c.opt_f64(key)?.unwrap_or(1.0));
    let (scale, residual) = (factor("attention_multiplier")?, factor("residual_multiplier")?);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, attention_bias);
        attention.scale = scale;
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, mlp_bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp))).with_factor(residual)
    });
    let mut model = decoder.model("granite", layers.collect());
    model.embedding_factor = factor("embedding_multiplier")?;
    model.logit_factor = 1.0 / factor("logits_scaling")?;
    Ok(model)
}
