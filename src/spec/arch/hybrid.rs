//! Token mixers of the hybrid Qwen models: three of four layers are Gated DeltaNet, and the fourth
//! is attention with an output gate.

use super::activation::activation;
use super::decoder::{Decoder, full_attention};
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{DeltaInputs, DeltaNet, Gate, Linear, Mixer, Norm, Qkv, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

const FULL_ATTENTION_INTERVAL: usize = 4;
const CONV_KERNEL: usize = 4;

/// The mixers of all layers.
pub(super) struct Hybrid {
    /// The activation of the feed-forward networks.
    pub activation: Activation,
    full: Vec<bool>,
    bias: bool,
    linear: LinearAttention,
}

impl Hybrid {
    /// If `separate`, the projections of a DeltaNet are stored separately, not grouped per key
    /// head.
    pub(super) fn from_config(c: &Config, decoder: &Decoder, separate: bool) -> Result<Self> {
        let bias = c.bool_or("attention_bias", false)?;
        let activation = activation(c, "hidden_act", "silu")?;
        if activation != Activation::Silu {
            return Err(
                c.uncomputed("hidden_act", "is neither silu nor swish, with which the linear layers are computed")
            );
        }
        let interval = match c.opt_usize("full_attention_interval")? {
            Some(0) => return Err(c.wrong("full_attention_interval", "is 0")),
            interval => interval.unwrap_or(FULL_ATTENTION_INTERVAL),
        };
        let full = full_attention(c, decoder.layers, "linear_attention", |i| (i + 1) % interval == 0)?;
        Ok(Self { activation, full, bias, linear: LinearAttention::from_config(c, separate)? })
    }

    pub(super) fn mixer(&self, decoder: &Decoder, i: usize) -> Mixer {
        if !self.full[i] {
            return Mixer::DeltaNet(Box::new(self.linear.delta_net(decoder, i)));
        }
        let mut attention = decoder.attention(i, self.bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        attention.gate = Some(Gate::InQuery);
        if let Qkv::Separate { q, .. } = &mut attention.qkv {
            // The outputs of a head are its query, then its gate.
            let name = format!("{}self_attn.q_proj", decoder.layer(i));
            *q = Linear::new(&name, 2 * attention.heads * attention.head_dim, decoder.hidden, self.bias);
        }
        Mixer::Attention(Box::new(attention))
    }
}

/// The settings `linear_…`: heads and sizes of Gated DeltaNet.
struct LinearAttention {
    separate: bool,
    key_heads: usize,
    value_heads: usize,
    key_dim: usize,
    value_dim: usize,
    kernel: usize,
}

impl LinearAttention {
    fn from_config(c: &Config, separate: bool) -> Result<Self> {
        let linear = Self {
            separate,
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
        let linear = |part: &str, out| Linear::new(&name(part), out, decoder.hidden, false);
        let inputs = if self.separate {
            DeltaInputs::Separate {
                qkv: linear("in_proj_qkv", 2 * keys + values),
                z: linear("in_proj_z", values),
                b: linear("in_proj_b", self.value_heads),
                a: linear("in_proj_a", self.value_heads),
            }
        } else {
            DeltaInputs::Grouped {
                qkvz: linear("in_proj_qkvz", 2 * keys + 2 * values),
                ba: linear("in_proj_ba", 2 * self.value_heads),
            }
        };
        DeltaNet {
            key_heads: self.key_heads,
            value_heads: self.value_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            inputs,
            conv: TensorSpec::new(name("conv1d.weight"), [2 * keys + values, 1, self.kernel]),
            a_log: TensorSpec::new(name("A_log"), [self.value_heads]),
            dt_bias: TensorSpec::new(name("dt_bias"), [self.value_heads]),
            norm: Norm::new(NormKind::Rms, &name("norm"), self.value_dim, decoder.eps),
            out: Linear::new(&name("out_proj"), decoder.hidden, values, false),
        }
    }
}
