//! GPT-NeoX and Pythia (`model_type` "gpt_neox"). Facts: transformers `modeling_gpt_neox`; Black et
//! al. 2022, Biderman et al. 2023.
//!
//! Attention and feed-forward network each have a LayerNorm of the same stream as input, and their
//! outputs are added together. One projection holds the query, key and value of each head. The
//! first dimensions of a head have a rotary embedding.

use super::activation::activation;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::Rope;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Attention, Ffn, Layer, Linear, Mixer, Mlp, Model, Norm, Qkv, Sublayer, TensorSpec};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults {
    partial_rotary_factor: Some(0.25),
    theta_key: "rotary_emb_base",
    share_key: "rotary_pct",
    ..rope_config::DEFAULTS
};

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size("hidden_size")?);
    let (heads, intermediate) = (c.size("num_attention_heads")?, c.size("intermediate_size")?);
    if hidden % heads != 0 {
        return Err(c.wrong("num_attention_heads", &format!("is {heads}, which does not divide hidden_size {hidden}")));
    }
    let eps = c.opt_f64("layer_norm_eps")?.unwrap_or(1e-5);
    let act = activation(c, "hidden_act", "gelu")?;
    let bias = c.bool_or("attention_bias", true)?;
    let parallel = c.bool_or("use_parallel_residual", true)?;
    let tied = c.bool_or("tie_word_embeddings", false)?;
    let rope = Rope::from_config(c, hidden / heads, &ROPE)?;
    let norm = |name: &str| Norm::new(NormKind::Layer, &format!("gpt_neox.{name}"), hidden, eps);
    let layer = |i: usize| {
        let linear =
            |part: &str, out, input, bias| Linear::new(&format!("gpt_neox.layers.{i}.{part}"), out, input, bias);
        let qkv = Qkv::Grouped(linear("attention.query_key_value", 3 * hidden, hidden, bias));
        let out = linear("attention.dense", hidden, hidden, bias);
        let mut attention = Attention::new((heads, heads, hidden / heads), qkv, out);
        attention.rope = Some(rope.clone());
        let mlp = Mlp {
            gate: None,
            up: linear("mlp.dense_h_to_4h", intermediate, hidden, true),
            down: linear("mlp.dense_4h_to_h", hidden, intermediate, true),
            activation: act,
            xielu: None,
        };
        let attention = Mixer::Attention(Box::new(attention));
        let mixer = Sublayer::new(norm(&format!("layers.{i}.input_layernorm")), attention);
        let ffn = Sublayer::new(norm(&format!("layers.{i}.post_attention_layernorm")), Ffn::Dense(Box::new(mlp)));
        Layer { parallel, ..Layer::of(Some(mixer), Some(ffn)) }
    };
    let layers = (0..c.layers(&["num_hidden_layers"])?).map(layer).collect();
    let embedding = TensorSpec::new("gpt_neox.embed_in.weight", [vocab, hidden]);
    let ends = names.ends_called(tied, embedding, "embed_out.weight");
    Ok(Model::new("gpt_neox", hidden, ends, layers, norm("final_layer_norm")))
}
