//! Nemotron-H and Nemotron 3 (`model_type` "nemotron_h"). Facts: transformers `modeling_nemotron_h`; NVIDIA 2025.
//!
//! A layer is one norm and one of four: Mamba-2, attention without positions, a feed-forward network with squared ReLU, or a
//! mixture of such.

use std::sync::Arc;

use super::decoder::head_sizes;
use super::experts::{ONE_GROUP, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{
    Attention, Experts, Ffn, Layer, Linear, Mamba2, Mixer, Mlp, Model, Moe, Norm, Qkv, Router, SharedExpert, Sublayer,
    TensorSpec,
};
use crate::vocabulary::{Activation, NormKind};

/// Of training, of inference, and of other kinds of models of the family.
const WITHOUT_EFFECT: &[&str] = &[
    "chunk_size",
    "expand",
    "hidden_dropout",
    "layers_block_type",
    "mamba_ssm_cache_dtype",
    "mamba_ssm_dtype",
    "norm_eps",
    "num_logits_to_keep",
    "num_nextn_predict_layers",
    "mtp_hybrid_override_pattern",
    "mtp_layers_block_type",
    "partial_rotary_factor",
    "rescale_prenorm_residual",
    "residual_in_fp32",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "time_step_floor",
    "time_step_limit",
    "time_step_max",
    "time_step_rank",
    "use_mamba_kernels",
    "hidden_act",
    "intermediate_size",
    "moe_shared_expert_overlap",
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Mamba,
    Attention,
    Dense,
    Mixture,
}

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size("hidden_size")?);
    let kinds = kinds(c)?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    for (key, act) in [("mlp_hidden_act", "relu2"), ("mamba_hidden_act", "silu")] {
        c.only(key, act.into())?;
    }
    c.only("moe_latent_size", 0.into())?;
    let tied = c.bool_or("tie_word_embeddings", false)?;
    let parts = Parts {
        c,
        hidden,
        eps,
        attention_bias: c.bool_or("attention_bias", false)?,
        mlp_bias: c.bool_or("mlp_bias", false)?,
    };
    let mut layers = Vec::new();
    for (i, kind) in kinds.into_iter().enumerate() {
        let name = format!("backbone.layers.{i}.mixer.");
        let norm = Norm::new(NormKind::RmsRoundedOnce, &format!("backbone.layers.{i}.norm"), hidden, eps);
        let mixer =
            |mixer| Layer { mixer: Some(Sublayer::new(norm.clone(), mixer)), ffn: None, parallel: false, scalar: None };
        let ffn =
            |ffn| Layer { mixer: None, ffn: Some(Sublayer::new(norm.clone(), ffn)), parallel: false, scalar: None };
        layers.push(match kind {
            Kind::Mamba => mixer(Mixer::Mamba2(Box::new(parts.mamba(&name)?))),
            Kind::Attention => mixer(Mixer::Attention(Box::new(parts.attention(&name)?))),
            Kind::Dense => ffn(Ffn::Dense(Box::new(parts.mlp(&name, c.size("intermediate_size")?, parts.mlp_bias)))),
            Kind::Mixture => ffn(Ffn::Moe(Box::new(parts.mixture(&name, &layers)?))),
        });
    }
    c.without_effect(WITHOUT_EFFECT);
    let ends = names.ends(tied, TensorSpec::new("backbone.embeddings.weight", [vocab, hidden]));
    let final_norm = Norm::new(NormKind::RmsRoundedOnce, "backbone.norm_f", hidden, eps);
    Ok(Model::new("nemotron_h", hidden, ends, layers, final_norm))
}

struct Parts<'a> {
    c: &'a Config,
    hidden: usize,
    eps: f64,
    attention_bias: bool,
    mlp_bias: bool,
}

impl Parts<'_> {
    fn mamba(&self, name: &str) -> Result<Mamba2> {
        let (c, named) = (self.c, |part: &str| format!("{name}{part}"));
        let (heads, head_dim) = (c.size("mamba_num_heads")?, c.size("mamba_head_dim")?);
        let (groups, state) = (c.size("n_groups")?, c.size("ssm_state_size")?);
        if !heads.is_multiple_of(groups) {
            return Err(c.wrong("n_groups", &format!("is {groups}, which does not divide {heads} heads")));
        }
        let bias = c.bool_or("mamba_proj_bias", false)? | c.bool_or("use_bias", false)?;
        let (inner, channels) = (heads * head_dim, heads * head_dim + 2 * groups * state);
        let kernel = c.opt_usize("conv_kernel")?.unwrap_or(4);
        Ok(Mamba2 {
            heads,
            head_dim,
            groups,
            state,
            input: Linear::new(&named("in_proj"), inner + channels + heads, self.hidden, bias),
            conv: TensorSpec::new(named("conv1d.weight"), [channels, 1, kernel]),
            conv_bias: c.bool_or("use_conv_bias", true)?.then(|| TensorSpec::new(named("conv1d.bias"), [channels])),
            dt_bias: TensorSpec::new(named("dt_bias"), [heads]),
            a_log: TensorSpec::new(named("A_log"), [heads]),
            d: TensorSpec::new(named("D"), [heads]),
            norm: Norm::new(NormKind::Rms, &named("norm"), inner, self.eps),
            out: Linear::new(&named("out_proj"), self.hidden, inner, bias),
            min_step: c.opt_f64("time_step_min")?.unwrap_or(0.001),
        })
    }

    fn attention(&self, name: &str) -> Result<Attention> {
        let (heads, kv_heads, head_dim) = head_sizes(self.c)?;
        let linear = |part: &str, out, input| Linear::new(&format!("{name}{part}"), out, input, self.attention_bias);
        let qkv = Qkv::Separate {
            q: linear("q_proj", heads * head_dim, self.hidden),
            k: linear("k_proj", kv_heads * head_dim, self.hidden),
            v: linear("v_proj", kv_heads * head_dim, self.hidden),
        };
        Ok(Attention::new((heads, kv_heads, head_dim), qkv, linear("o_proj", self.hidden, heads * head_dim)))
    }

    fn mlp(&self, name: &str, width: usize, bias: bool) -> Mlp {
        let linear = |part: &str, out, input| Linear::new(&format!("{name}{part}"), out, input, bias);
        let (up, down) = (linear("up_proj", width, self.hidden), linear("down_proj", self.hidden, width));
        Mlp { gate: None, up, down, activation: Activation::ReluSquared, xielu: None }
    }

    fn mixture(&self, name: &str, layers: &[Layer]) -> Result<Moe> {
        let (c, top_k) = (self.c, self.c.size("num_experts_per_tok")?);
        let num_experts = c.experts(&["n_routed_experts"], top_k, layers.len() + 1)?;
        let intermediate = c.size("moe_intermediate_size")?;
        let sizes = Sizes { num_experts, top_k, intermediate, activation: Activation::ReluSquared };
        let shared = c.opt_usize("n_shared_experts")?.unwrap_or(1);
        let width = c.size("moe_shared_expert_intermediate_size")?;
        let expert = |e: usize| self.mlp(&format!("{name}experts.{e}."), intermediate, false);
        let shared_mlp = || self.mlp(&format!("{name}shared_experts."), shared * width, self.mlp_bias);
        Ok(Moe {
            num_experts,
            top_k,
            router: Router {
                linear: Linear::new(&format!("{name}gate"), num_experts, self.hidden, false),
                scoring: ONE_GROUP.scoring(c, sizes)?,
                correction_bias: Some(TensorSpec::new(format!("{name}gate.e_score_correction_bias"), [num_experts])),
            },
            experts: Arc::new(Experts::Separate((0..num_experts).map(expert).collect())),
            shared: (shared > 0).then(|| SharedExpert { mlp: shared_mlp(), gate: None }),
            intermediate,
        })
    }
}

/// What each layer is: by letters, or by words where transformers 5 wrote the config.
fn kinds(c: &Config) -> Result<Vec<Kind>> {
    let kinds = match (c.opt_str("hybrid_override_pattern")?, c.opt_list_str("layers_block_type")?) {
        (Some(letters), _) => {
            let kind = |letter| match letter {
                'M' => Ok(Kind::Mamba),
                '*' => Ok(Kind::Attention),
                '-' => Ok(Kind::Dense),
                'E' => Ok(Kind::Mixture),
                _ => Err(c.wrong("hybrid_override_pattern", &format!("has '{letter}'; known are M, *, - and E"))),
            };
            letters.chars().map(kind).collect::<Result<Vec<_>>>()?
        }
        (None, Some(words)) => {
            let kind = |word: &String| match word.as_str() {
                "linear_attention" | "mamba" => Ok(Kind::Mamba),
                "full_attention" | "attention" => Ok(Kind::Attention),
                "mlp" => Ok(Kind::Dense),
                "moe" => Ok(Kind::Mixture),
                word => Err(c.wrong("layers_block_type", &format!("has \"{}\"", shown(word)))),
            };
            words.iter().map(kind).collect::<Result<Vec<_>>>()?
        }
        (None, None) => return Err(c.absent("hybrid_override_pattern", "it says what each layer is")),
    };
    match c.opt_usize("num_hidden_layers")? {
        Some(layers) if layers != kinds.len() => {
            Err(c.wrong("num_hidden_layers", &format!("is {layers}, and {} layers are described", kinds.len())))
        }
        _ => Ok(kinds),
    }
}
