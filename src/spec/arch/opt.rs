//! OPT (`model_type` "opt"). Facts: transformers `modeling_opt`; Zhang et al. 2022.
//!
//! LayerNorms, learned positions whose table starts with two unused rows, and ReLU. Embeddings may
//! be narrower than the residual stream. OPT-350m has no norms before attention and MLP: its norms
//! are applied to the sum with the residual stream, which they replace.

use super::activation::activation;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Attention, Ffn, Layer, Linear, MaxPositions, Mixer, Mlp, Model, Norm, Positions, Qkv, TensorSpec};
use crate::vocabulary::NormKind;

/// The epsilon of `torch.nn.LayerNorm`, which is fixed.
const LAYER_NORM_EPS: f64 = 1e-5;
/// Row of position 0 in the table of positions.
const POSITION_OFFSET: usize = 2;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let prefix = "model.decoder.";
    let hidden = c.size("hidden_size")?;
    let heads = c.size("num_attention_heads")?;
    let max_positions = c.size("max_position_embeddings")?;
    let vocab = c.size("vocab_size")?;
    let layers = c.layers(&["num_hidden_layers"])?;
    let inner = c.size("ffn_dim")?;
    if hidden % heads != 0 {
        return Err(c.wrong("num_attention_heads", &format!("is {heads}, which does not divide hidden_size {hidden}")));
    }
    let before = c.bool_or("do_layer_norm_before", true)?;
    c.only("layer_norm_elementwise_affine", true.into())?;
    let width = c.opt_usize("word_embed_proj_dim")?.unwrap_or(hidden);
    let bias = c.bool_or("enable_bias", true)?;
    let act = activation(c, "activation_function", "relu")?;
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let without_final_norm = c.bool_or("_remove_final_layer_norm", false)? || !before;

    let norm = |name: String| Norm::new(NormKind::Layer, &name, hidden, LAYER_NORM_EPS);
    let layer = |i: usize| {
        let name = |part: &str| format!("{prefix}layers.{i}.{part}");
        let square = |part: &str| Linear::new(&name(part), hidden, hidden, bias);
        let qkv = Qkv::Separate {
            q: square("self_attn.q_proj"),
            k: square("self_attn.k_proj"),
            v: square("self_attn.v_proj"),
        };
        let attention = Attention::new((heads, heads, hidden / heads), qkv, square("self_attn.out_proj"));
        let (up, down) =
            (Linear::new(&name("fc1"), inner, hidden, bias), Linear::new(&name("fc2"), hidden, inner, bias));
        let (mixer, ffn) = (Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(Mlp::ungated(up, down, act))));
        // The name of the decoder's final norm is that of a layer's second norm, without the layer.
        let norms = ["self_attn_layer_norm", "final_layer_norm"].map(|part| norm(name(part)));
        if before { Layer::of_two_norms(norms, mixer, ffn) } else { Layer::of_sum_norms(norms, mixer, ffn) }
    };
    let ends = names.ends(tied, TensorSpec::new(format!("{prefix}embed_tokens.weight"), [vocab, width]));
    let layers = (0..layers).map(layer).collect();
    let mut model = Model::new("opt", hidden, ends, layers, norm(format!("{prefix}final_layer_norm")));
    if without_final_norm {
        model.final_norm = None;
    }
    let between =
        |name: &str, out, input| (width != hidden).then(|| Linear::new(&format!("{prefix}{name}"), out, input, false));
    model.project_in = between("project_in", hidden, width);
    model.project_out = between("project_out", width, hidden);
    let positions = [max_positions + POSITION_OFFSET, hidden];
    let weight = TensorSpec::new(format!("{prefix}embed_positions.weight"), positions);
    model.positions = Some(Positions { weight, offset: POSITION_OFFSET });
    model.max_positions = Some(MaxPositions::learned(max_positions));
    Ok(model)
}
