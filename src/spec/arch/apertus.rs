//! Apertus (`model_type` "apertus"). Facts: transformers `modeling_apertus`; Apertus Project 2025;
//! Huang and Schlag 2025 (xIELU).
//!
//! The feed-forward network has no gate, and its activation has four parameters in each layer.
//! Query and key norms are per head.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Layer, Mixer, Mlp, Model, Norm, TensorSpec, XIelu};
use crate::vocabulary::{Activation, NormKind};

const ROPE: RopeDefaults = RopeDefaults {
    theta: 12e6,
    parameters: Some(
        r#"{"rope_type": "llama3", "rope_theta": 12e6, "factor": 8.0, "original_max_position_embeddings": 8192, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0}"#,
    ),
    ..rope_config::DEFAULTS
};
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let (hidden, intermediate) = (decoder.hidden, c.size("intermediate_size")?);
    let bias = c.bool_or("attention_bias", false)?;
    c.only("hidden_act", "xielu".into())?;
    c.only("qk_norm", true.into())?;
    c.only("post_norm", false.into())?;
    c.only("mlp_bias", false.into())?;
    let layers = (0..decoder.layers).map(|i| {
        let name = |part: &str| format!("{}{part}", decoder.layer(i));
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        let mut mlp =
            Mlp::plain(&name("mlp."), ["up_proj", "down_proj"], hidden, intermediate, Activation::Silu, false);
        let parameter = |part: &str, shape: &[usize]| TensorSpec::new(name(&format!("mlp.act_fn.{part}")), shape);
        mlp.xielu = Some(XIelu {
            alpha_p: parameter("alpha_p", &[1]),
            alpha_n: parameter("alpha_n", &[1]),
            beta: parameter("beta", &[]),
            eps: parameter("eps", &[]),
        });
        let norm = |part: &str| Norm::new(decoder.norm, &name(part), hidden, decoder.eps);
        let norms = [norm("attention_layernorm"), norm("feedforward_layernorm")];
        Layer::of_two_norms(norms, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("apertus", layers.collect()))
}
