//! Qwen3-Next (`model_type` "qwen3_next"). Facts: transformers `modeling_qwen3_next`; Qwen3-Next release notes 2025.
//!
//! Three of four layers are Gated DeltaNet, the fourth is attention with an output gate. All norms but the one inside
//! DeltaNet are zero-centred. The `mtp.` tensors of checkpoints are not part of a forward pass.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, full_attention};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{DeltaNet, Ffn, Gate, Linear, Mixer, Mlp, Model, Norm, Qkv, Scoring, SharedExpert, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

const ROPE: RopeDefaults =
    RopeDefaults { partial_rotary_factor: Some(0.25), layer_types: &["full_attention"], ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(2), head_dim: Some(256), rope: ROPE, ..LLAMA };
const FULL_ATTENTION_INTERVAL: usize = 4;
const CONV_KERNEL: usize = 4;

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    let act = activation(c, "hidden_act", "silu")?;
    if act != Activation::Silu {
        return Err(c.wrong("hidden_act", "is neither silu nor swish, with which the linear layers are computed"));
    }
    let interval = match c.opt_usize("full_attention_interval")? {
        Some(0) => return Err(c.wrong("full_attention_interval", "is 0")),
        interval => interval.unwrap_or(FULL_ATTENTION_INTERVAL),
    };
    let full = full_attention(c, decoder.layers, "linear_attention", |i| (i + 1) % interval == 0)?;
    let linear = LinearAttention::from_config(c)?;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["num_experts", "num_local_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("moe_intermediate_size")?,
        activation: act,
    };
    let scoring = Scoring::softmax(c.bool_or("norm_topk_prob", true)?);
    let shared_intermediate = c.size("shared_expert_intermediate_size")?;
    let dense_intermediate = c.size("intermediate_size")?;
    let sparse = experts::sparse_layers(c, decoder.layers)?;
    let mixture = |prefix: &str| {
        let mut moe = experts::separate(prefix, decoder.hidden, sizes, scoring.clone());
        moe.shared = Some(SharedExpert {
            mlp: Mlp::gated(&format!("{prefix}shared_expert."), decoder.hidden, shared_intermediate, act, false),
            gate: Some(Linear::new(&format!("{prefix}shared_expert_gate"), 1, decoder.hidden, false)),
        });
        moe
    };
    let layers = (0..decoder.layers).map(|i| {
        let mixer = if full[i] {
            let mut attention = decoder.attention(i, bias);
            attention.qk_norm = Some(decoder.qk_norm(i, true));
            attention.gate = Some(Gate::InQuery);
            if let Qkv::Separate { q, .. } = &mut attention.qkv {
                // Per head the query and then its gate.
                let name = format!("{}self_attn.q_proj", decoder.layer(i));
                *q = Linear::new(&name, 2 * attention.heads * attention.head_dim, decoder.hidden, bias);
            }
            Mixer::Attention(Box::new(attention))
        } else {
            Mixer::DeltaNet(Box::new(linear.delta_net(&decoder, i)))
        };
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            Ffn::Moe(Box::new(mixture(&prefix)))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, decoder.hidden, dense_intermediate, act, false)))
        };
        decoder.block(i, mixer, ffn)
    });
    Ok(decoder.model("qwen3_next", layers.collect()))
}

/// The `linear_…` settings: heads and sizes of Gated DeltaNet.
struct LinearAttention {
    key_heads: usize,
    value_heads: usize,
    key_dim: usize,
    value_dim: usize,
    kernel: usize,
}

impl LinearAttention {
    fn from_config(c: &Config) -> Result<Self> {
        let linear = Self {
            key_heads: c.size("linear_num_key_heads")?,
            value_heads: c.size("linear_num_value_heads")?,
            key_dim: c.size("linear_key_head_dim")?,
            value_dim: c.size("linear_value_head_dim")?,
            kernel: c.opt_usize("linear_conv_kernel_dim")?.unwrap_or(CONV_KERNEL),
        };
        if !linear.value_heads.is_multiple_of(linear.key_heads) {
            let problem = format!("is {}, no multiple of the {} key heads", linear.value_heads, linear.key_heads);
            return Err(c.wrong("linear_num_value_heads", &problem));
        }
        if linear.kernel == 0 {
            return Err(c.wrong("linear_conv_kernel_dim", "is 0"));
        }
        Ok(linear)
    }

    fn delta_net(&self, decoder: &Decoder, i: usize) -> DeltaNet {
        let name = |part: &str| format!("{}linear_attn.{part}", decoder.layer(i));
        let (keys, values) = (self.key_heads * self.key_dim, self.value_heads * self.value_dim);
        DeltaNet {
            key_heads: self.key_heads,
            value_heads: self.value_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            in_qkvz: Linear::new(&name("in_proj_qkvz"), 2 * keys + 2 * values, decoder.hidden, false),
            in_ba: Linear::new(&name("in_proj_ba"), 2 * self.value_heads, decoder.hidden, false),
            conv: TensorSpec::new(name("conv1d.weight"), [2 * keys + values, 1, self.kernel]),
            a_log: TensorSpec::new(name("A_log"), [self.value_heads]),
            dt_bias: TensorSpec::new(name("dt_bias"), [self.value_heads]),
            norm: Norm::new(NormKind::Rms, &name("norm"), self.value_dim, decoder.eps),
            out: Linear::new(&name("out_proj"), decoder.hidden, values, false),
        }
    }
}
