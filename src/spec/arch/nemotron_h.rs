//! Nemotron-H and Nemotron 3 (`model_type` "nemotron_h"). Facts: transformers
//! `modeling_nemotron_h`; NVIDIA 2025.
//!
//! A layer has one norm and one sublayer of four kinds: Mamba-2, attention without positions, a
//! feed-forward network with squared ReLU, or a mixture of such networks.

use std::sync::Arc;

use super::activation::activation;
use super::decoder::{Defaults, LLAMA, another_counts, head_sizes, without_positions};
use super::experts::{self, ONE_GROUP, Sizes};
use super::mamba::{Kind, OLDER, kinds, mamba2};
use super::names::Names;
use crate::error::{Error, Result};
use crate::spec::config::Config;
use crate::spec::{Experts, Ffn, Layer, Mixer, Mlp, Model, Moe, Norm, SharedExpert, Sublayer, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

/// Keys for training, for inference, and for other kinds of models of the family.
#[rustfmt::skip]
const WITHOUT_EFFECT: &[&str] = &[
    "chunk_size", "expand", "hidden_dropout", "layers_block_type", "mamba_ssm_cache_dtype", "mamba_ssm_dtype", "norm_eps",
    "num_logits_to_keep", "num_nextn_predict_layers", "mtp_hybrid_override_pattern", "mtp_layers_block_type",
    "partial_rotary_factor", "rescale_prenorm_residual", "residual_in_fp32", "rope_parameters", "rope_scaling", "rope_theta",
    "sliding_window", "time_step_floor", "time_step_limit", "time_step_max", "time_step_rank", "use_mamba_kernels",
    "hidden_act", "intermediate_size", "moe_shared_expert_overlap",
];

/// Keys for kinds of layers that a model may not have.
#[rustfmt::skip]
const OF_OTHER_LAYERS: &[&str] = &[
    "num_attention_heads", "num_key_value_heads", "head_dim", "mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size",
    "conv_kernel", "use_bias", "use_conv_bias", "time_step_min", "num_experts_per_tok", "n_routed_experts", "moe_intermediate_size",
    "moe_shared_expert_intermediate_size", "n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor",
];
const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(8), head_dim: Some(HEAD_DIM), ..LLAMA };
const HEAD_DIM: usize = 128;
/// Keys that transformers does not read, each with the value that does not mislead.
const NOT_READ: &[(&str, &str)] =
    &[("attention_bias", "false"), ("mamba_proj_bias", "false"), ("n_shared_experts", "1")];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size("hidden_size")?);
    let kinds = kinds(c)?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    c.only("mamba_hidden_act", "silu".into())?;
    let act = activation(c, "mlp_hidden_act", "relu2")?;
    c.only("moe_latent_size", 0.into())?;
    let tied = c.bool_or("tie_word_embeddings", false)?;
    let parts = Parts { c, hidden, act, mlp_bias: c.bool_or("mlp_bias", false)? };
    let mut layers = Vec::new();
    for (i, kind) in kinds.into_iter().enumerate() {
        let name = format!("backbone.layers.{i}.mixer.");
        let norm = Norm::new(NormKind::RmsRoundedOnce, &format!("backbone.layers.{i}.norm"), hidden, eps);
        let mixer = |mixer| Layer::of(Some(Sublayer::new(norm.clone(), mixer)), None);
        let ffn = |ffn| Layer::of(None, Some(Sublayer::new(norm.clone(), ffn)));
        layers.push(match kind {
            Kind::Mamba => mixer(Mixer::Mamba2(Box::new(mamba2(c, &name, hidden, eps)?))),
            Kind::Attention => {
                let attention = without_positions(&name, hidden, head_sizes(c, &DEFAULTS)?, false);
                mixer(Mixer::Attention(Box::new(attention)))
            }
            Kind::Dense => ffn(Ffn::Dense(Box::new(parts.mlp(&name, c.size("intermediate_size")?, parts.mlp_bias)))),
            Kind::Mixture => ffn(Ffn::Moe(Box::new(parts.mixture(&name, &layers)?))),
        });
    }
    c.without_effect(WITHOUT_EFFECT);
    c.without_effect(OF_OTHER_LAYERS);
    c.without_effect(OLDER);
    said_twice(c, eps)?;
    for (key, usual) in NOT_READ {
        if let Some(value) = c.get(key).map(ToString::to_string).filter(|value| value != usual) {
            c.tell(key, &format!("is {value}, which has no effect: modeling_nemotron_h does not read it"));
        }
    }
    let ends = names.ends(tied, TensorSpec::new("backbone.embeddings.weight", [vocab, hidden]));
    let final_norm = Norm::new(NormKind::RmsRoundedOnce, "backbone.norm_f", hidden, eps);
    Ok(Model::new("nemotron_h", hidden, ends, layers, final_norm))
}

/// Checks the names in NVIDIA's own code of settings that transformers reads under other names.
fn said_twice(c: &Config, eps: f64) -> Result<()> {
    let number = |key: &str, usual: f64| Ok::<_, Error>(c.opt_f64(key)?.unwrap_or(usual));
    let head_dim = number("head_dim", HEAD_DIM as f64)?;
    let kv_heads = number("num_key_value_heads", number("num_attention_heads", 0.0)?)?;
    another_counts(c, "attention_head_dim", "head_dim", head_dim)?;
    another_counts(c, "rms_norm_eps", "layer_norm_epsilon", eps)?;
    another_counts(c, "num_query_groups", "num_key_value_heads", kv_heads)
}

struct Parts<'a> {
    c: &'a Config,
    hidden: usize,
    act: Activation,
    mlp_bias: bool,
}

impl Parts<'_> {
    fn mlp(&self, prefix: &str, width: usize, bias: bool) -> Mlp {
        Mlp::plain(prefix, ["up_proj", "down_proj"], self.hidden, width, self.act, bias)
    }

    fn mixture(&self, name: &str, layers: &[Layer]) -> Result<Moe> {
        let (c, top_k) = (self.c, self.c.size("num_experts_per_tok")?);
        let num_experts = c.experts(&["n_routed_experts"], top_k, layers.len() + 1)?;
        let intermediate = c.size("moe_intermediate_size")?;
        let sizes = Sizes { num_experts, top_k, intermediate, activation: self.act };
        let width = c.size("moe_shared_expert_intermediate_size")?;
        let expert = |e: usize| self.mlp(&format!("{name}experts.{e}."), intermediate, false);
        let shared = self.mlp(&format!("{name}shared_experts."), width, self.mlp_bias);
        let mut moe = experts::separate(name, self.hidden, sizes, ONE_GROUP.scoring(c, sizes)?);
        let correction = format!("{name}gate.e_score_correction_bias");
        moe.router.correction_bias = Some(TensorSpec::new(correction, [num_experts]));
        moe.experts = Arc::new(Experts::Separate((0..num_experts).map(expert).collect()));
        moe.shared = Some(SharedExpert::plain(shared));
        Ok(moe)
    }
}
