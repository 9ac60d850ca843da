//! Falcon (`model_type` "falcon"). Facts: transformers `modeling_falcon`; Almazrouei et al. 2023.
//!
//! Three kinds of layers: attention and MLP in parallel with one LayerNorm (7B, 11B) or with one
//! each (40B, 180B), or one after the other (RW). One projection holds, for each key head, its
//! queries, its key and its value. RW has linear biases of scores, rounded to bf16, in place of
//! rotary embeddings.

use super::activation::activation;
use super::alibi;
use super::decoder::head_size;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::Rope;
use crate::spec::rope_config::DEFAULTS;
use crate::spec::{Alibi, Attention, Ffn, Layer, Linear, Mixer, Mlp, Model, Norm, Qkv, Sublayer, TensorSpec};
use crate::vocabulary::NormKind;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size_by(&["hidden_size", "n_embed"])?);
    let heads = c.size("num_attention_heads")?;
    let head_dim = head_size(c, "num_attention_heads", heads, hidden)?;
    let inner = c.opt_usize("ffn_hidden_size")?.unwrap_or(4 * hidden);
    let act = activation(c, "activation", "gelu")?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    let bias = c.bool_or("bias", false)?;
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let kind = Kind::from_config(c)?;
    let kv_heads = kv_heads(c, heads)?;
    c.only("apply_residual_connection_post_layernorm", false.into())?;
    c.without_effect(&["ff_factor"]);
    let (rope, alibi) = if c.bool_or("alibi", false)? {
        c.without_effect(&["rope_theta", "rope_scaling", "rope_parameters"]);
        // The scores are scaled after the biases are added.
        (None, Some(Alibi { slopes: alibi::slopes(heads), rounded: Some((head_dim as f32).powf(-0.5)) }))
    } else {
        (Some(Rope::from_config(c, head_dim, &DEFAULTS)?), None)
    };

    let norm = |name: &str| Norm::new(NormKind::Layer, &format!("transformer.{name}"), hidden, eps);
    let layer = |i: usize| {
        let linear = |part: &str, out, input| Linear::new(&format!("transformer.h.{i}.{part}"), out, input, bias);
        let size = (heads + 2 * kv_heads) * head_dim;
        let qkv = Qkv::Grouped(linear("self_attention.query_key_value", size, hidden));
        let out = linear("self_attention.dense", hidden, hidden);
        let mut attention = Attention::new((heads, kv_heads, head_dim), qkv, out);
        (attention.rope, attention.alibi) = (rope.clone(), alibi.clone());
        let (up, down) = (linear("mlp.dense_h_to_4h", inner, hidden), linear("mlp.dense_4h_to_h", hidden, inner));
        let (mixer, ffn) = (Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(Mlp::ungated(up, down, act))));
        let norm = |part: &str| norm(&format!("h.{i}.{part}"));
        match kind {
            Kind::OneAfterTheOther => {
                Layer::of_two_norms([norm("input_layernorm"), norm("post_attention_layernorm")], mixer, ffn)
            }
            Kind::OnOneNorm => Layer::of_one_norm(norm("input_layernorm"), mixer, ffn),
            Kind::OnTwoNorms => {
                let (mixer, ffn) = (Sublayer::new(norm("ln_attn"), mixer), Sublayer::new(norm("ln_mlp"), ffn));
                Layer { parallel: true, ..Layer::of(Some(mixer), Some(ffn)) }
            }
        }
    };
    let ends = names.ends(tied, TensorSpec::new("transformer.word_embeddings.weight", [vocab, hidden]));
    let layers = (0..c.layers(&["num_hidden_layers"])?).map(layer).collect();
    Ok(Model::new("falcon", hidden, ends, layers, norm("ln_f")))
}

/// The arrangement of attention and feed-forward network.
#[derive(Clone, Copy)]
enum Kind {
    OneAfterTheOther,
    /// Both in parallel.
    OnOneNorm,
    /// Both in parallel.
    OnTwoNorms,
}

impl Kind {
    fn from_config(c: &Config) -> Result<Self> {
        let new = c.bool_or("new_decoder_architecture", false)?;
        let norms = c.opt_usize("num_ln_in_parallel_attn")?;
        match (new, c.nullable_bool_or("parallel_attn", true)?, norms) {
            (true, false, _) => Err(c.wrong(
                "parallel_attn",
                "is false, which transformers does not compute for `new_decoder_architecture`",
            )),
            (true, true, None | Some(2)) => Ok(Self::OnTwoNorms),
            (_, true, None | Some(1)) => Ok(Self::OnOneNorm),
            (false, false, None | Some(1)) => Ok(Self::OneAfterTheOther),
            (_, _, Some(count)) => {
                let problem = format!("is {count}, which transformers does not compute for this kind of layer");
                Err(c.wrong("num_ln_in_parallel_attn", &problem))
            }
        }
    }
}

/// The number of key heads: one if an older config has `multi_query`, `num_kv_heads` otherwise.
fn kv_heads(c: &Config, heads: usize) -> Result<usize> {
    let (new, multi_query) = (c.bool_or("new_decoder_architecture", false)?, c.nullable_bool_or("multi_query", true)?);
    let count = c.opt_usize("num_kv_heads")?.unwrap_or(heads);
    let wrong = |problem: &str| Err(c.wrong("num_kv_heads", &format!("is {count}, {problem}")));
    match (new, multi_query) {
        (true, _) if count == 0 || !heads.is_multiple_of(count) => {
            wrong(&format!("which does not divide {heads} heads"))
        }
        (true, _) => Ok(count),
        (false, true) => Ok(1),
        (false, false) if count != heads => wrong("but without `multi_query` each head has a key of its own"),
        (false, false) => Ok(heads),
    }
}
