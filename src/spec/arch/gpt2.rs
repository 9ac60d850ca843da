//! GPT-2 (`model_type` "gpt2"). Facts: transformers `modeling_gpt2`; Radford et al. 2019.
//!
//! LayerNorms, learned positions, one fused projection for q, k and v, and weights stored as [in,
//! out]. The names in checkpoints may begin with `transformer.`. `attn.bias` in checkpoints is a
//! causal mask, not a bias.

use super::activation::activation;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{
    Attention, Ffn, Layer, Linear, MaxPositions, Mixer, Mlp, Model, Norm, Positions, Qkv, Sublayer, TensorSpec,
};
use crate::vocabulary::NormKind;

const LAYER_NORM_EPSILON: f64 = 1e-5;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let prefix = "transformer.";
    let hidden = c.size_by(&["n_embd", "hidden_size"])?;
    let layers = c.layers(&["n_layer", "num_hidden_layers"])?;
    let heads = c.size_by(&["n_head", "num_attention_heads"])?;
    let max_positions = c.size_by(&["n_positions", "max_position_embeddings"])?;
    let vocab = c.size("vocab_size")?;
    if hidden % heads != 0 {
        return Err(c.wrong("n_head", &format!("is {heads}, which does not divide n_embd {hidden}")));
    }
    let inner = c.opt_usize("n_inner")?.unwrap_or(4 * hidden);
    let act = activation(c, "activation_function", "gelu_new")?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(LAYER_NORM_EPSILON);
    let scaled = c.bool_or("scale_attn_weights", true)?;
    let by_layer = c.bool_or("scale_attn_by_inverse_layer_idx", false)?;
    let tied = c.bool_or("tie_word_embeddings", true)?;

    let norm = |name: String| Norm::new(NormKind::Layer, &name, hidden, eps);
    let layer = |i: usize| {
        let name = |part: &str| format!("{prefix}h.{i}.{part}");
        let qkv = Qkv::Fused(Linear::transposed(&name("attn.c_attn"), 3 * hidden, hidden, true));
        let out = Linear::transposed(&name("attn.c_proj"), hidden, hidden, true);
        let mut attention = Attention::new((heads, heads, hidden / heads), qkv, out);
        attention.scale = if scaled { attention.scale } else { 1.0 } / if by_layer { (i + 1) as f64 } else { 1.0 };
        let mlp = Mlp {
            gate: None,
            up: Linear::transposed(&name("mlp.c_fc"), inner, hidden, true),
            down: Linear::transposed(&name("mlp.c_proj"), hidden, inner, true),
            activation: act,
            xielu: None,
        };
        let mixer = Sublayer::new(norm(name("ln_1")), Mixer::Attention(Box::new(attention)));
        let ffn = Sublayer::new(norm(name("ln_2")), Ffn::Dense(Box::new(mlp)));
        Layer::of(Some(mixer), Some(ffn))
    };
    let ends = names.ends(tied, TensorSpec::new(format!("{prefix}wte.weight"), [vocab, hidden]));
    let layers = (0..layers).map(layer).collect();
    let mut model = Model::new("gpt2", hidden, ends, layers, norm(format!("{prefix}ln_f")));
    let weight = TensorSpec::new(format!("{prefix}wpe.weight"), [max_positions, hidden]);
    model.positions = Some(Positions { weight, offset: 0 });
    model.max_positions = Some(MaxPositions::learned(max_positions));
    Ok(model)
}
