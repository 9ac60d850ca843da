//! gpt-oss (`model_type` "gpt_oss"). Facts: transformers `modeling_gpt_oss`; OpenAI model card
//! 2025.
//!
//! Experts are stacked in one tensor each, which is MXFP4 in releases, or [in, out] in bf16 if they
//! were unpacked. The tensor names tell which, or `quantization_config` if there is no checkpoint
//! yet.

use std::sync::Arc;

use super::decoder::{Decoder, Defaults, LLAMA, layer_windows, sliding_window};
use super::names::Names;
use crate::error::Result;
use crate::formats::ggml;
use crate::formats::mxfp4::BLOCK;
use crate::spec::config::Config;
use crate::spec::quantised;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Divisor, Experts, Ffn, Linear, Mixer, Mlp, Model, Moe, Router, Score, Scoring, TensorSpec};
use crate::vocabulary::{Activation, NormKind, Order};

const ROPE: RopeDefaults = RopeDefaults {
    theta: 150_000.0,
    layer_types: &["full_attention", "sliding_attention"],
    parameters: Some(
        r#"{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096}"#,
    ),
    ..rope_config::DEFAULTS
};
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), head_dim: Some(64), rope: ROPE, ..LLAMA };
// The defaults of `swiglu_limit` and `sliding_window` in transformers.
const SWIGLU_LIMIT: f64 = 7.0;
const SLIDING_WINDOW: usize = 128;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsRoundedOnce, &DEFAULTS)?;
    c.only("swiglu_alpha", 1.702.into())?;
    let bias = c.bool_or("attention_bias", true)?;
    let window = sliding_window(c)?.or(Some(SLIDING_WINDOW).filter(|_| c.missing("sliding_window")));
    let windows = layer_windows(c, decoder.layers, window, |i| i % 2 == 0)?;
    let experts = StackedExperts::from_config(c, names, &decoder)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.sinks = Some(TensorSpec::new(format!("{}self_attn.sinks", decoder.layer(i)), [attention.heads]));
        attention.span = windows[i];
        let ffn = Ffn::Moe(Box::new(experts.moe(&format!("{}mlp.", decoder.layer(i)))));
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("gpt_oss", layers.collect()))
}

struct StackedExperts {
    hidden: usize,
    intermediate: usize,
    num_experts: usize,
    top_k: usize,
    limit: f32,
    packed: bool,
}

impl StackedExperts {
    fn from_config(c: &Config, names: &dyn Names, decoder: &Decoder) -> Result<Self> {
        let top_k = c.size_by(&["num_experts_per_tok", "experts_per_token"])?;
        if !c.has("num_experts_per_tok") {
            // transformers reads the other name only, and without it takes four.
            c.only("experts_per_token", 4.into())?;
        }
        let experts = Self {
            hidden: decoder.hidden,
            intermediate: c.size("intermediate_size")?,
            num_experts: c.experts(&["num_local_experts", "num_experts"], top_k, decoder.layers)?,
            top_k,
            limit: c.opt_f64("swiglu_limit")?.unwrap_or(SWIGLU_LIMIT) as f32,
            packed: packed(c, names, &format!("{}mlp.experts.gate_up_proj", decoder.layer(0)))?,
        };
        for (key, size) in [("hidden_size", experts.hidden), ("intermediate_size", experts.intermediate)] {
            if experts.packed && size % BLOCK != 0 {
                return Err(c.wrong(key, &format!("is {size}, not a multiple of the {BLOCK} values of an MXFP4 block")));
            }
        }
        Ok(experts)
    }

    fn moe(&self, prefix: &str) -> Moe {
        let (hidden, intermediate, count) = (self.hidden, self.intermediate, self.num_experts);
        let tensor = |name: &str, shape: [usize; 3]| TensorSpec::new(format!("{prefix}experts.{name}"), shape);
        let linear = |name: &str, out: usize, input: usize| {
            let (weight, order) = match self.packed {
                true => (tensor(name, [count, out, input]), Order::OutIn),
                false => (tensor(name, [count, input, out]), Order::InOut),
            };
            let bias = TensorSpec::new(format!("{prefix}experts.{name}_bias"), [count, out]);
            Linear { weight, bias: Some(bias), order, rounding: None }
        };
        Moe {
            num_experts: count,
            top_k: self.top_k,
            router: Router::new(
                Linear::new(&format!("{prefix}router"), count, hidden, true),
                Scoring::new(Score::Chosen, Divisor::One),
            ),
            expert_norm: None,
            sum_norm: None,
            experts: Arc::new(Experts::Stacked(Mlp {
                gate: None,
                up: linear("gate_up_proj", 2 * intermediate, hidden),
                down: linear("down_proj", hidden, intermediate),
                activation: Activation::ClampedSwiglu { limit: self.limit },
                xielu: None,
            })),
            shared: None,
            intermediate,
        }
    }
}

/// Whether `weight` is stored as rows of outputs: as MXFP4 blocks and scales, or in a GGUF file.
fn packed(c: &Config, names: &dyn Names, weight: &str) -> Result<bool> {
    // A GGUF file has rows of outputs, too, in whatever type.
    if ggml::names(weight).any(|name| names.has(&name)) {
        return Ok(true);
    }
    let announced = quantised::settings(c)?.is("mxfp4");
    Ok(match (names.has(&format!("{weight}_blocks")), names.has(weight)) {
        (true, false) => true,
        (false, true) => false,
        _ => announced,
    })
}
