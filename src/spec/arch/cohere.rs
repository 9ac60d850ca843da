//! Cohere's Command R and R+ (`model_type` "cohere"). Facts: transformers `modeling_cohere`; no
//! paper.
//!
//! Attention and MLP have the same LayerNorm as input, which has no bias, and their outputs are
//! added together. The rotary embedding rotates adjacent dimensions. Logits have a factor. R+ has
//! LayerNorms of queries and keys with a weight for each head.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Attention, Ffn, HeadNorm, Layer, Mixer, Mlp, Model, Norm, QkNorm, TensorSpec};
use crate::vocabulary::{NormKind, Pairs};

const ROPE: RopeDefaults = RopeDefaults { pairs: Pairs::Adjacent, ..rope_config::DEFAULTS };
/// The defaults of both generations, except for the rope.
pub(super) const DEFAULTS: Defaults =
    Defaults { eps_key: "layer_norm_eps", rms_norm_eps: 1e-5, tied: true, rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let defaults = Defaults { rope: RopeDefaults { theta: 500_000.0, ..ROPE }, ..DEFAULTS };
    let decoder = Decoder::from_config(c, names, NormKind::Layer, &defaults)?;
    let with_norms = c.bool_or("use_qk_norm", false)?;
    parallel(c, "cohere", &decoder, |i, attention| {
        let norm = |part: &str, heads: usize| {
            let name = format!("{}self_attn.{part}", decoder.layer(i));
            let mut norm = Norm::new(NormKind::Layer, &name, decoder.heads.head_dim, decoder.eps).without_bias();
            norm.weight = TensorSpec::new(norm.weight.name, [heads, decoder.heads.head_dim]);
            HeadNorm::Each(norm)
        };
        attention.qk_norm = with_norms.then(|| QkNorm {
            q: norm("q_norm", decoder.heads.heads),
            k: Some(norm("k_norm", decoder.heads.kv_heads)),
            after_rope: false,
        });
    })
}

/// A model of layers with one norm. `change` changes the attention of each layer.
pub(super) fn parallel(
    c: &Config,
    model_type: &str,
    decoder: &Decoder,
    change: impl Fn(usize, &mut Attention),
) -> Result<Model> {
    let (intermediate, act) = (c.size("intermediate_size")?, activation(c, "hidden_act", "silu")?);
    let bias = c.bool_or("attention_bias", false)?;
    let norm = |name: &str| Norm::new(NormKind::Layer, name, decoder.hidden, decoder.eps).without_bias();
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        change(i, &mut attention);
        let name = |part: &str| format!("{}{part}", decoder.layer(i));
        let mlp = Mlp::gated(&name("mlp."), decoder.hidden, intermediate, act, false);
        let (mixer, ffn) = (Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)));
        Layer::of_one_norm(norm(&name("input_layernorm")), mixer, ffn)
    });
    let mut model = decoder.model(model_type, layers.collect());
    model.final_norm = Some(norm(&format!("{}norm", decoder.prefix)));
    model.logit_factor = c.opt_f64("logit_scale")?.unwrap_or(0.0625);
    Ok(model)
}
