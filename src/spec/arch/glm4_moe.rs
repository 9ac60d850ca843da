//! GLM-4.5 (`model_type` "glm4_moe"). Facts: transformers `modeling_glm4_moe`; GLM-4.5 technical report 2025.
//!
//! The first layers are dense. Experts are chosen by sigmoid scores plus a correction bias, within the best groups of
//! experts, and weighted by the scores alone; shared experts are added. `attention_bias` never concerns the output
//! projection. The extra layer for multi-token prediction that checkpoints hold is not part of a forward pass.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Divisor, Ffn, Groups, Mixer, Mlp, Model, Moe, Score, Scoring, SharedExpert, TensorSpec};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { partial_rotary_factor: Some(0.5), ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), rope: ROPE, ..LLAMA };

/// Added to the sum of the weights before they are divided by it (transformers `Glm4MoeTopkRouter`, DeepSeek-V3).
const SIGMOID_EPS: f32 = 1e-20;

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    let qk_norm = c.bool_or("use_qk_norm", false)?;
    let act = activation(c, "hidden_act", "silu")?;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["n_routed_experts", "num_local_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("moe_intermediate_size")?,
        activation: act,
    };
    let scoring = scoring(c, sizes.num_experts, sizes.top_k)?;
    let shared = c.opt_usize("n_shared_experts")?.unwrap_or(1);
    let dense_layers = c.opt_usize("first_k_dense_replace")?.unwrap_or(1);
    let dense_intermediate = c.size("intermediate_size")?;
    let mixture = |prefix: &str| {
        let mut moe: Moe = experts::separate(prefix, decoder.hidden, sizes, scoring.clone());
        let name = format!("{prefix}gate.e_score_correction_bias");
        moe.router.correction_bias = Some(TensorSpec::new(name, [sizes.num_experts]));
        let (prefix, width) = (format!("{prefix}shared_experts."), shared * sizes.intermediate);
        let mlp = || Mlp::gated(&prefix, decoder.hidden, width, act, false);
        moe.shared = (shared > 0).then(|| SharedExpert { mlp: mlp(), gate: None });
        moe
    };
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.out.bias = None;
        attention.qk_norm = qk_norm.then(|| decoder.qk_norm(i, true));
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if i < dense_layers {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, decoder.hidden, dense_intermediate, act, false)))
        } else {
            Ffn::Moe(Box::new(mixture(&prefix)))
        };
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("glm4_moe", layers.collect()))
}

/// The router of DeepSeek-V3: sigmoid scores, chosen with a correction bias within the best groups.
pub fn scoring(c: &Config, num_experts: usize, top_k: usize) -> Result<Scoring> {
    let groups = c.opt_usize("n_group")?.unwrap_or(1);
    let top_groups = c.opt_usize("topk_group")?.unwrap_or(1);
    // A group is judged by the sum of its two best experts.
    if groups == 0 || !num_experts.is_multiple_of(groups) || num_experts / groups < 2 {
        let problem = format!("is {groups}, which does not split {} experts into groups of two or more", num_experts);
        return Err(c.wrong("n_group", &problem));
    }
    if top_groups == 0 || top_groups > groups || top_k > top_groups * (num_experts / groups) {
        let problem = format!("is {top_groups}: too few or too many of {groups} groups for {} experts", top_k);
        return Err(c.wrong("topk_group", &problem));
    }
    let divisor = if c.bool_or("norm_topk_prob", true)? { Divisor::Sum(SIGMOID_EPS) } else { Divisor::One };
    let mut scoring = Scoring::new(Score::Sigmoid, divisor);
    scoring.groups = Some(Groups { count: groups, top: top_groups, judged_by: 2, masked: f32::NEG_INFINITY });
    scoring.factor = c.opt_f64("routed_scaling_factor")?.unwrap_or(1.0) as f32;
    Ok(scoring)
}
