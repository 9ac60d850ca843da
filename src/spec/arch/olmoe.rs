//! OLMoE (`model_type` "olmoe"). Facts: transformers `modeling_olmoe`; Muennighoff et al. 2024.
//!
//! Query and key norms are over the whole projection, and the chosen experts' weights are not
//! renormalised by default.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Model, Scoring};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    let clip = c.opt_f64("clip_qkv")?;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["num_experts", "num_local_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("intermediate_size")?,
        activation: activation(c, "hidden_act", "silu")?,
    };
    let scoring = Scoring::softmax(c.bool_or("norm_topk_prob", false)?);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, false));
        attention.clip = clip;
        let prefix = format!("{}mlp.", decoder.layer(i));
        let moe = experts::separate(&prefix, decoder.hidden, sizes, scoring.clone());
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe)))
    });
    Ok(decoder.model("olmoe", layers.collect()))
}
