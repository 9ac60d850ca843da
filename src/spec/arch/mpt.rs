//! MPT (`model_type` "mpt"). Facts: transformers `modeling_mpt`; MosaicML 2023.
//!
//! LayerNorms without biases, one projection for q, k and v, and linear biases of scores in place
//! of positions.

use super::alibi;
use super::decoder::{another_counts, head_size};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Alibi, Attention, Ffn, Layer, Linear, Mixer, Mlp, Model, Norm, Qkv, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size_by(&["d_model", "hidden_size"])?);
    let layers = c.layers(&["n_layers", "num_hidden_layers"])?;
    let heads = c.size_by(&["n_heads", "num_attention_heads"])?;
    let head_dim = head_size(c, "n_heads", heads, hidden)?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let (clip, scale) = attention_settings(c)?;
    // transformers has fixed values for these keys.
    c.only("no_bias", true.into())?;
    if c.opt_str("norm_type")?.is_some_and(|kind| !["layernorm", "low_precision_layernorm"].contains(&kind.as_str())) {
        return Err(c.uncomputed("norm_type", "is not \"layernorm\" or \"low_precision_layernorm\""));
    }
    c.get("logit_scale")
        .map_or(Ok(()), |_| Err(c.uncomputed("logit_scale", "asks for a factor that is not applied")))?;
    // A model with linear biases has no learned positions. The other keys are for training and
    // tokenizers.
    c.without_effect(&["learned_pos_emb", "max_seq_len", "emb_pdrop", "embedding_fraction", "fc_type", "loss_fn"]);
    c.without_effect(&["init_config", "init_device", "tokenizer_name", "verbose", "use_pad_tok_in_ffn"]);

    if let Some(network) = c.section("ffn_config")? {
        network.only("ffn_type", "mptmlp".into())?;
        network.without_effect(&["fc_type"]);
        network.finish_section()?;
    }
    another_counts(c, "norm_eps", "layer_norm_epsilon", eps)?;
    let inner = inner(c, names, hidden)?;
    let slopes = alibi::mpt_slopes(heads);
    let norm = |name: &str| Norm::new(NormKind::Layer, &format!("transformer.{name}"), hidden, eps).without_bias();
    let layer = |i: usize| {
        let linear = |part: &str, out, input| Linear::new(&format!("transformer.blocks.{i}.{part}"), out, input, false);
        let qkv = Qkv::Fused(linear("attn.Wqkv", 3 * hidden, hidden));
        let mut attention = Attention::new((heads, heads, head_dim), qkv, linear("attn.out_proj", hidden, hidden));
        attention.alibi = Some(Alibi { slopes: slopes.clone(), rounded: None });
        attention.clip = clip;
        attention.scale = scale.unwrap_or(attention.scale);
        let up = linear("ffn.up_proj", inner, hidden);
        let mlp = Mlp::ungated(up, linear("ffn.down_proj", hidden, inner), Activation::GeluErf);
        let norms = ["norm_1", "norm_2"].map(|part| norm(&format!("blocks.{i}.{part}")));
        Layer::of_two_norms(norms, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    };
    let ends = names.ends(tied, TensorSpec::new("transformer.wte.weight", [vocab, hidden]));
    Ok(Model::new("mpt", hidden, ends, (0..layers).map(layer).collect(), norm("norm_f")))
}

/// The inner width of the MLPs, `expansion_ratio` times the hidden size. transformers does not read
/// that key and has four times the hidden size, which counts if the files have it.
fn inner(c: &Config, names: &dyn Names, hidden: usize) -> Result<usize> {
    let ratio = c.opt_f64("expansion_ratio")?.unwrap_or(4.0);
    let first = names.headers().and_then(|(files, _)| files.header("transformer.blocks.0.ffn.up_proj.weight"));
    if first.is_some_and(|first| first.shape == [4 * hidden, hidden]) {
        if ratio != 4.0 {
            c.tell("expansion_ratio", &format!("is {ratio}, which has no effect: the MLPs in the files have 4"));
        }
        return Ok(4 * hidden);
    }
    match (hidden as f64 * ratio) as usize {
        0 => Err(c.wrong("expansion_ratio", &format!("is {ratio}, which makes MLPs of no width"))),
        inner => Ok(inner),
    }
}

/// The settings `clip_qkv` and `softmax_scale` of `attn_config`.
fn attention_settings(c: &Config) -> Result<(Option<f64>, Option<f64>)> {
    let Some(attention) = c.section("attn_config")? else { return Ok((None, None)) };
    attention.only("alibi", true.into())?;
    attention.only("alibi_bias_max", 8.into())?;
    attention.only("attn_type", "multihead_attention".into())?;
    attention.only("fused_qkv", true.into())?;
    for off in ["attn_uses_sequence_id", "prefix_lm", "qk_ln", "qk_gn", "rope", "nope", "fused_norm_attn_norm"] {
        attention.only(off, false.into())?;
    }
    attention.only("sliding_window_size", (-1).into())?;
    attention.without_effect(&["attn_impl", "attn_pdrop", "model_type", "rope_theta", "rope_impl"]);
    attention.without_effect(&["rope_dail_config", "rope_hf_config"]);
    let settings = (attention.opt_f64("clip_qkv")?, attention.opt_f64("softmax_scale")?);
    // transformers has a class of its own for this object, which writes what every class writes.
    attention.finish("mpt")?;
    Ok(settings)
}
