//! Qwen3-MoE (`model_type` "qwen3_moe"). Facts: transformers `modeling_qwen3_moe`; Qwen3 technical
//! report 2025.
//!
//! Query and key norms are per head. Some layers may be dense. A sliding window, if it is enabled,
//! applies to every layer: these configs have `max_window_layers`, but the reference does not read
//! it.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, span, switched_window};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model, Scoring};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(4), ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    let window = switched_window(c)?;
    let act = activation(c, "hidden_act", "silu")?;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["num_experts", "num_local_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("moe_intermediate_size")?,
        activation: act,
    };
    let scoring = Scoring::softmax(c.bool_or("norm_topk_prob", false)?);
    let dense_intermediate = c.size("intermediate_size")?;
    let sparse = experts::sparse_layers(c, decoder.layers)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        attention.span = span(window);
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            Ffn::Moe(Box::new(experts::separate(&prefix, decoder.hidden, sizes, scoring.clone())))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, decoder.hidden, dense_intermediate, act, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("qwen3_moe", layers.collect()))
}
