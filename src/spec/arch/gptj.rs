//! GPT-J (`model_type` "gptj"). Facts: transformers `modeling_gptj`; Wang and Komatsuzaki 2021.
//!
//! Attention and feed-forward network have the same LayerNorm as input, and their outputs are added
//! together. The first `rotary_dim` dimensions of a head have a rotary embedding of adjacent pairs.
//! The head has a bias. `attn.bias` and `attn.masked_bias` in files are a causal mask.

use super::activation::activation;
use super::decoder::head_size;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::{Rope, Scaling};
use crate::spec::{Attention, Ffn, Layer, Linear, MaxPositions, Mixer, Mlp, Model, Norm, Qkv, TensorSpec};
use crate::vocabulary::{NormKind, Pairs};

/// The base of the frequencies, which is fixed.
const THETA: f64 = 10_000.0;
/// The default of `rotary_dim`.
const ROTARY_DIM: usize = 64;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let hidden = c.size_by(&["n_embd", "hidden_size"])?;
    let layers = c.layers(&["n_layer", "num_hidden_layers"])?;
    let heads = c.size_by(&["n_head", "num_attention_heads"])?;
    let positions = c.size_by(&["n_positions", "max_position_embeddings"])?;
    let (vocab, head_dim) = (c.size("vocab_size")?, head_size(c, "n_head", heads, hidden)?);
    let inner = c.opt_usize("n_inner")?.unwrap_or(4 * hidden);
    let act = activation(c, "activation_function", "gelu_new")?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    let tied = c.bool_or("tie_word_embeddings", false)?;
    c.only("rotary", true.into())?;
    c.only("scale_attn_weights", true.into())?;
    let dim = if c.missing("rotary_dim") { ROTARY_DIM } else { c.size("rotary_dim")? };
    if !dim.is_multiple_of(2) || dim > head_dim {
        return Err(c.wrong("rotary_dim", &format!("is {dim} for heads of {head_dim} dimensions")));
    }
    let rope = Rope { theta: THETA, dim, pairs: Pairs::Adjacent, scaling: Scaling::None };

    let norm = |name: &str| Norm::new(NormKind::Layer, &format!("transformer.{name}"), hidden, eps);
    let layer = |i: usize| {
        let linear = |part: &str, out, input, bias| Linear::new(&format!("transformer.h.{i}.{part}"), out, input, bias);
        let square = |part: &str| linear(part, hidden, hidden, false);
        let qkv = Qkv::Separate { q: square("attn.q_proj"), k: square("attn.k_proj"), v: square("attn.v_proj") };
        let mut attention = Attention::new((heads, heads, head_dim), qkv, square("attn.out_proj"));
        attention.rope = Some(rope.clone());
        let (up, down) = (linear("mlp.fc_in", inner, hidden, true), linear("mlp.fc_out", hidden, inner, true));
        let (mixer, ffn) = (Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(Mlp::ungated(up, down, act))));
        Layer::of_one_norm(norm(&format!("h.{i}.ln_1")), mixer, ffn)
    };
    let ends = names.ends(tied, TensorSpec::new("transformer.wte.weight", [vocab, hidden]));
    let mut model = Model::new("gptj", hidden, ends, (0..layers).map(layer).collect(), norm("ln_f"));
    model.head_bias = Some(TensorSpec::new("lm_head.bias", [vocab]));
    model.max_positions = Some(MaxPositions { positions, why: "its table of rotary angles has no more" });
    Ok(model)
}
