//! LFM2 (`model_type` "lfm2"). Facts: transformers `modeling_lfm2`; Liquid AI 2025.
//!
//! Most layers have a short convolution between two gates in place of attention. The name of the
//! final norm is `embedding_norm`.

use super::decoder::{Decoder, Defaults, LLAMA, another_counts};
use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, GatedConv, HeadNorm, Layer, Linear, Mixer, Mlp, Model, Norm, QkNorm, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

const ROPE: RopeDefaults = RopeDefaults { theta: 1_000_000.0, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1e-5, eps_key: "norm_eps", tied: true, num_key_value_heads: Some(8), rope: ROPE, ..LLAMA };
/// Keys for training, and other spellings of keys that are read.
const WITHOUT_EFFECT: &[&str] = &[
    "block_dim",
    "block_mlp_init_scale",
    "block_norm_eps",
    "block_out_init_scale",
    "block_use_swiglu",
    "block_use_xavier_init",
    "conv_dim",
    "conv_dim_out",
    "conv_use_xavier_init",
    "num_heads",
    "use_pos_enc",
];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &Defaults { tied_key: tied_key(c)?, ..DEFAULTS })?;
    another_counts(c, "theta", "rope_theta", decoder.rope.theta)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("conv_bias", false)?);
    let kernel = c.opt_usize("conv_L_cache")?.unwrap_or(3);
    let inner = inner(c)?;
    let full = full(c, decoder.layers)?;
    c.without_effect(WITHOUT_EFFECT);
    let layers = (0..decoder.layers).map(|i| {
        let name = |part: &str| format!("{}{part}", decoder.layer(i));
        let norm = |part: &str, size| Norm::new(NormKind::Rms, &name(part), size, decoder.eps);
        let mixer = if full[i] {
            let mut attention = decoder.attention(i, false);
            attention.out =
                Linear::new(&name("self_attn.out_proj"), hidden, attention.heads * attention.head_dim, false);
            let of = |part: &str| HeadNorm::Each(norm(part, decoder.heads.head_dim));
            let (q, k) = (of("self_attn.q_layernorm"), of("self_attn.k_layernorm"));
            attention.qk_norm = Some(QkNorm { q, k: Some(k), after_rope: false });
            Mixer::Attention(Box::new(attention))
        } else {
            Mixer::GatedConv(Box::new(GatedConv {
                input: Linear::new(&name("conv.in_proj"), 3 * hidden, hidden, bias),
                conv: TensorSpec::new(name("conv.conv.weight"), [hidden, 1, kernel]),
                conv_bias: bias.then(|| TensorSpec::new(name("conv.conv.bias"), [hidden])),
                out: Linear::new(&name("conv.out_proj"), hidden, hidden, bias),
            }))
        };
        let linear = |part: &str, out, input| Linear::new(&name(&format!("feed_forward.{part}")), out, input, false);
        let mlp = Mlp {
            gate: Some(linear("w1", inner, hidden)),
            up: linear("w3", inner, hidden),
            down: linear("w2", hidden, inner),
            activation: Activation::Silu,
            xielu: None,
        };
        let norms = [norm("operator_norm", hidden), norm("ffn_norm", hidden)];
        Layer::of_two_norms(norms, mixer, Ffn::Dense(Box::new(mlp)))
    });
    let mut model = decoder.model("lfm2", layers.collect());
    model.final_norm = Some(Norm::new(NormKind::Rms, "model.embedding_norm", hidden, decoder.eps));
    Ok(model)
}

/// The key that ties head and embedding. The older name has precedence, as in Lfm2Config.
fn tied_key(c: &Config) -> Result<&'static str> {
    if !c.has("tie_embedding") {
        return Ok("tie_word_embeddings");
    }
    let tied = c.bool_or("tie_embedding", true)?;
    if c.bool_or("tie_word_embeddings", tied)? != tied {
        let says = format!("is {}, but `tie_embedding` is {tied}; as in transformers, the latter counts", !tied);
        c.tell("tie_word_embeddings", &says);
    }
    Ok("tie_embedding")
}

/// Inner width of the feed-forward networks: two thirds of the config's number, rounded up to a
/// multiple, unless the config turns this off.
fn inner(c: &Config) -> Result<usize> {
    // The older name has precedence, as in Lfm2Config.
    let width = c.size(if c.has("block_ff_dim") { "block_ff_dim" } else { "intermediate_size" })?;
    if let Some(other) = c.opt_usize("intermediate_size")?.filter(|other| *other != width) {
        let says = format!("is {other}, but `block_ff_dim` is {width}; as in transformers, the latter counts");
        c.tell("intermediate_size", &says);
    }
    let multiple = c.opt_usize("block_multiple_of")?.unwrap_or(256).max(1);
    let factor = c.opt_f64("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    if !c.bool_or("block_auto_adjust_ff_dim", true)? {
        return Ok(width);
    }
    Ok(((factor * (2 * width / 3) as f64) as usize).next_multiple_of(multiple))
}

/// Whether each layer has attention.
fn full(c: &Config, layers: usize) -> Result<Vec<bool>> {
    if let Some(types) = c.opt_list_str("layer_types")? {
        let full = |name: &String| match name.as_str() {
            "full_attention" => Ok(true),
            "conv" => Ok(false),
            name => {
                Err(c.uncomputed("layer_types", &format!("has \"{}\"; known are full_attention, conv", shown(name))))
            }
        };
        c.without_effect(&["full_attn_idxs"]);
        let full = types.iter().map(full).collect::<Result<Vec<_>>>()?;
        return match full.len() == layers {
            true => Ok(full),
            false => Err(c.wrong("layer_types", &format!("has {} entries for {layers} layers", full.len()))),
        };
    }
    let Some(indices) = c.opt_list_usize("full_attn_idxs")? else { return Ok(vec![true; layers]) };
    Ok((0..layers).map(|i| indices.contains(&i)).collect())
}
