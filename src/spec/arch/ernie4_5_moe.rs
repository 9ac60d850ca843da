//! ERNIE 4.5 with experts (`model_type` "ernie4_5_moe"). Facts: transformers
//! `modeling_ernie4_5_moe`; Baidu 2025.
//!
//! The rotary embedding rotates adjacent dimensions of a head. Experts are chosen by softmax scores
//! plus a correction bias, and their weights are divided by their sum, if it is not too small.
//! Shared experts are added.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Divisor, Ffn, Mixer, Mlp, Model, Score, Scoring, TensorSpec};
use crate::vocabulary::{NormKind, Pairs};

const ROPE: RopeDefaults = RopeDefaults { theta: 500_000.0, pairs: Pairs::Adjacent, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1e-5, tied: true, num_key_value_heads: Some(4), rope: ROPE, ..LLAMA };
/// The default of `moe_norm_min`.
const LEAST_SUM: f64 = 1e-12;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let hidden = decoder.hidden;
    c.only("use_bias", false.into())?;
    c.only("moe_gate", "topk".into())?;
    c.only("moe_use_aux_free", true.into())?;
    // Limits of training, and layers for multi-token prediction.
    c.without_effect(&["moe_capacity", "num_nextn_predict_layers"]);
    let top_k = c.size("moe_k")?;
    let sizes = Sizes {
        num_experts: c.experts(&["moe_num_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("moe_intermediate_size")?,
        activation: activation(c, "hidden_act", "silu")?,
    };
    let least = c.opt_f64("moe_norm_min")?.unwrap_or(LEAST_SUM) as f32;
    let shared = c.opt_usize("moe_num_shared_experts")?.unwrap_or(2) * sizes.intermediate;
    let dense = c.size("intermediate_size")?;
    let sparse = sparse_layers(c, decoder.layers)?;
    let layers = (0..decoder.layers).map(|i| {
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            let scoring = Scoring::new(Score::Softmax, Divisor::AtLeast(least));
            let mut moe = experts::separate(&prefix, hidden, sizes, scoring);
            let bias = TensorSpec::new(format!("{prefix}moe_statics.e_score_correction_bias"), [1, sizes.num_experts]);
            moe.router.correction_bias = Some(bias);
            moe.shared = experts::shared(&format!("{prefix}shared_experts."), hidden, shared, sizes.activation);
            Ffn::Moe(Box::new(moe))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, hidden, dense, sizes.activation, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(decoder.attention(i, false))), ffn)
    });
    Ok(decoder.model("ernie4_5_moe", layers.collect()))
}

/// Every `moe_layer_interval`-th layer from `moe_layer_start_index` to `moe_layer_end_index`, where
/// -1 is the last.
fn sparse_layers(c: &Config, layers: usize) -> Result<Vec<bool>> {
    let interval = c.opt_usize("moe_layer_interval")?.unwrap_or(1);
    if interval == 0 {
        return Err(c.wrong("moe_layer_interval", "is 0"));
    }
    let start = c.opt_usize("moe_layer_start_index")?.unwrap_or(1);
    let last = c.get("moe_layer_end_index").is_none_or(|end| end.as_i64() == Some(-1));
    let end = if last { layers } else { c.usize("moe_layer_end_index")? };
    Ok((0..layers).map(|i| (i + 1) % interval == 0 && (start..=end).contains(&i)).collect())
}
