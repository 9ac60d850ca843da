//! Hy3 (`model_type` "hy_v3"). Facts: transformers `modeling_hy_v3`; Tencent 2026.
//!
//! Qwen3's attention. Experts are chosen by sigmoid scores plus a bias. Shared experts are added.
//! Only `mlp_layer_types` determines the dense layers; by default it is the first.

use super::decoder::{Decoder, Defaults, LLAMA, another_counts};
use super::experts::{self, SUM_EPS, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Divisor, Ffn, Linear, Mixer, Mlp, Model, Score, Scoring, TensorSpec};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { theta: 11_158_840.0, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), head_dim: Some(128), rope: ROPE, ..LLAMA };
/// The default of `router_scaling_factor`.
const FACTOR: f64 = 2.826;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("attention_bias", false)?);
    c.only("mlp_bias", false.into())?;
    c.only("qk_norm", true.into())?;
    c.only("moe_router_use_sigmoid", true.into())?;
    c.only("moe_router_enable_expert_bias", true.into())?;
    experts::summed_anyway(c, "route_norm", true)?;
    // These are formats in which some sums are kept, layers for multi-token prediction, and a key
    // of which only the default is computed.
    c.without_effect(&["enable_attention_fp32_softmax", "enable_lm_head_fp32", "enable_moe_fp32_combine"]);
    c.without_effect(&["num_nextn_predict_layers", "first_k_dense_replace"]);
    let sizes =
        Sizes::from_config(c, decoder.layers, &["num_experts", "num_local_experts"], &["moe_intermediate_size"])?;
    another_counts(c, "expert_hidden_dim", "moe_intermediate_size", sizes.intermediate as f64)?;
    let mut scoring = Scoring::new(Score::Sigmoid, Divisor::Sum(SUM_EPS));
    scoring.factor = c.opt_f64("router_scaling_factor")?.unwrap_or(FACTOR) as f32;
    let shared = c.opt_usize("num_shared_experts")?.unwrap_or(1) * sizes.intermediate;
    let dense = c.size("intermediate_size")?;
    let sparse = experts::behind_dense(c, decoder.layers, 1)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            let mut moe = experts::separate(&prefix, hidden, sizes, scoring.clone());
            moe.router.linear = Linear::new(&format!("{prefix}router.gate"), sizes.num_experts, hidden, false);
            moe.router.correction_bias = Some(TensorSpec::new(format!("{prefix}expert_bias"), [sizes.num_experts]));
            moe.shared = experts::shared(&format!("{prefix}shared_mlp."), hidden, shared, sizes.activation);
            Ffn::Moe(Box::new(moe))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, hidden, dense, sizes.activation, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("hy_v3", layers.collect()))
}
