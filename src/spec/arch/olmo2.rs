//! OLMo 2 (`model_type` "olmo2"). Facts: transformers `modeling_olmo2`; OLMo et al. 2024, "2 OLMo 2
//! Furious".
//!
//! The input of attention and feed-forward network is the residual stream itself. Norms follow them
//! and are applied to their outputs. Query and key norms are over the whole projection.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, POST_NORMS};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsRoundedOnce, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let bias = c.bool_or("attention_bias", false)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, false));
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.post_norm_block(i, POST_NORMS, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("olmo2", layers.collect()))
}
