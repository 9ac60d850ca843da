//! MiniMax-M2 (`model_type` "minimax_m2"). Facts: transformers `modeling_minimax_m2`; MiniMax 2025.
//!
//! Query and key norms are over the whole projection. Experts, named as Mixtral's, are chosen by
//! sigmoid scores plus a correction bias. `rotary_dim` dimensions of a head have a rotary
//! embedding.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Divisor, Ffn, Mixer, Model, Score, Scoring, TensorSpec};
use crate::vocabulary::NormKind;

/// Keys that the modeling file does not read.
const UNREAD: &[&str] = &[
    "attn_type_list",
    "layernorm_full_attention_beta",
    "layernorm_linear_attention_beta",
    "layernorm_mlp_beta",
    "mlp_intermediate_size",
    "mtp_transformer_layers",
    "num_mtp_modules",
    "shared_moe_mode",
    "use_mtp",
];
/// The default size of a head.
const HEAD_DIM: usize = 128;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.without_effect(UNREAD);
    c.only("qk_norm_type", "per_layer".into())?;
    c.only("use_qk_norm", true.into())?;
    c.only("use_routing_bias", true.into())?;
    c.only("scoring_func", "sigmoid".into())?;
    c.only("shared_intermediate_size", 0.into())?;
    let head_dim = c.opt_usize("head_dim")?.unwrap_or(HEAD_DIM);
    let turning = c.opt_usize("rotary_dim")?.unwrap_or(head_dim);
    let share = Some(turning as f64 / head_dim.max(1) as f64);
    let rope = RopeDefaults { theta: 5_000_000.0, partial_rotary_factor: share, ..rope_config::DEFAULTS };
    let defaults = Defaults { num_key_value_heads: Some(8), head_dim: Some(HEAD_DIM), rope, ..LLAMA };
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &defaults)?;
    let sizes = Sizes::from_config(c, decoder.layers, &["num_local_experts", "num_experts"], &["intermediate_size"])?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, false);
        attention.qk_norm = Some(decoder.qk_norm(i, false));
        let prefix = format!("{}block_sparse_moe.", decoder.layer(i));
        let scoring = Scoring::new(Score::Sigmoid, Divisor::Sum(0.0));
        let mut moe = experts::separate(&prefix, decoder.hidden, sizes, scoring);
        moe.experts = experts::called(["w1", "w3", "w2"], &prefix, decoder.hidden, sizes);
        let bias = TensorSpec::new(format!("{prefix}e_score_correction_bias"), [sizes.num_experts]);
        moe.router.correction_bias = Some(bias);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe)))
    });
    Ok(decoder.model("minimax_m2", layers.collect()))
}
