//! BLOOM (`model_type` "bloom"). Facts: transformers `modeling_bloom`; BigScience Workshop 2022.
//!
//! It has LayerNorms, one of them after the embeddings, one projection with the query, key and
//! value of each head, and linear biases of scores in place of positions.

use super::alibi;
use super::decoder::head_size;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Alibi, Attention, Ffn, Layer, Linear, Mixer, Mlp, Model, Norm, Qkv, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size_by(&["hidden_size", "n_embed"])?);
    let layers = c.layers(&["n_layer", "num_hidden_layers"])?;
    let heads = c.size_by(&["n_head", "num_attention_heads"])?;
    let head_dim = head_size(c, "n_head", heads, hidden)?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    let tied = c.bool_or("tie_word_embeddings", true)?;
    c.only("apply_residual_connection_post_layernorm", false.into())?;
    // These are Megatron's variants of the same sums, and the width of the MLP, which is always
    // four times the hidden size.
    c.without_effect(&[
        "attention_softmax_in_fp32",
        "bias_dropout_fusion",
        "masked_softmax_fusion",
        "n_inner",
        "offset_alibi",
        "skip_bias_add",
        "skip_bias_add_qkv",
        "slow_but_exact",
    ]);
    let slopes = alibi::slopes(heads);
    let norm = |name: &str| Norm::new(NormKind::Layer, &format!("transformer.{name}"), hidden, eps);
    let layer = |i: usize| {
        let linear = |part: &str, out, input| Linear::new(&format!("transformer.h.{i}.{part}"), out, input, true);
        let qkv = Qkv::Grouped(linear("self_attention.query_key_value", 3 * hidden, hidden));
        let mut attention =
            Attention::new((heads, heads, head_dim), qkv, linear("self_attention.dense", hidden, hidden));
        attention.alibi = Some(Alibi { slopes: slopes.clone(), rounded: None });
        let up = linear("mlp.dense_h_to_4h", 4 * hidden, hidden);
        let mlp = Mlp::ungated(up, linear("mlp.dense_4h_to_h", hidden, 4 * hidden), Activation::GeluTanh);
        let norms = ["input_layernorm", "post_attention_layernorm"].map(|part| norm(&format!("h.{i}.{part}")));
        Layer::of_two_norms(norms, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    };
    let ends = names.ends(tied, TensorSpec::new("transformer.word_embeddings.weight", [vocab, hidden]));
    let mut model = Model::new("bloom", hidden, ends, (0..layers).map(layer).collect(), norm("ln_f"));
    model.embedding_norm = Some(norm("word_embeddings_layernorm"));
    Ok(model)
}
