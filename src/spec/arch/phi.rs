//! Phi-1, Phi-1.5 and Phi-2 (`model_type` "phi"). Facts: transformers `modeling_phi`; Gunasekar et
//! al. 2023.
//!
//! Attention and feed-forward network have the same LayerNorm as input, and their outputs are added
//! together. All projections and the head have biases.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, HeadNorm, Layer, Linear, Mixer, Mlp, Model, Norm, QkNorm, Reads, Sublayer, TensorSpec};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { partial_rotary_factor: Some(0.5), ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { eps_key: "layer_norm_eps", rms_norm_eps: 1e-5, rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Layer, &DEFAULTS)?;
    let (hidden, intermediate) = (decoder.hidden, c.size("intermediate_size")?);
    let act = activation(c, "hidden_act", "gelu_new")?;
    let with_norms = c.bool_or("qk_layernorm", false)?;
    let layers = (0..decoder.layers).map(|i| {
        let name = |part: &str| format!("{}{part}", decoder.layer(i));
        let mut attention = decoder.attention(i, true);
        attention.out = Linear::new(&name("self_attn.dense"), hidden, attention.heads * attention.head_dim, true);
        let norm =
            |part: &str| HeadNorm::Each(Norm::new(NormKind::Layer, &name(part), decoder.heads.head_dim, decoder.eps));
        attention.qk_norm = with_norms.then(|| QkNorm {
            q: norm("self_attn.q_layernorm"),
            k: Some(norm("self_attn.k_layernorm")),
            after_rope: false,
        });
        let mlp = Mlp {
            gate: None,
            up: Linear::new(&name("mlp.fc1"), intermediate, hidden, true),
            down: Linear::new(&name("mlp.fc2"), hidden, intermediate, true),
            activation: act,
            xielu: None,
        };
        let norm = Norm::new(NormKind::Layer, &name("input_layernorm"), hidden, decoder.eps);
        let mixer = Sublayer::new(norm, Mixer::Attention(Box::new(attention)));
        let ffn = Sublayer::reading(Reads::AsMixer, Ffn::Dense(Box::new(mlp)));
        Layer { parallel: true, ..Layer::of(Some(mixer), Some(ffn)) }
    });
    let mut model = decoder.model("phi", layers.collect());
    model.final_norm = Some(Norm::new(NormKind::Layer, "model.final_layernorm", hidden, decoder.eps));
    model.head_bias = Some(TensorSpec::new("lm_head.bias", [model.vocab_size]));
    Ok(model)
}
