//! OPT (`model_type` "opt"), the sizes that normalise before attention. Facts: transformers `modeling_opt`; Zhang et al.
//! 2022.
//!
//! LayerNorms, learned positions whose table starts with two unused rows, ReLU; embeddings may be narrower than the
//! hidden states. OPT-350m normalises after attention; it is refused.

use super::activation::activation;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{
    Attention, Ffn, Layer, Linear, MaxPositions, Mixer, Mlp, Model, Norm, Positions, Qkv, Sublayer, TensorSpec,
};
use crate::vocabulary::NormKind;

/// Of `torch.nn.LayerNorm`; not a setting.
const LAYER_NORM_EPS: f64 = 1e-5;
/// Row of position 0 in the table of positions.
const POSITION_OFFSET: usize = 2;

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
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
    c.only("do_layer_norm_before", true.into())?;
    c.only("layer_norm_elementwise_affine", true.into())?;
    let width = c.opt_usize("word_embed_proj_dim")?.unwrap_or(hidden);
    let bias = c.bool_or("enable_bias", true)?;
    let act = activation(c, "activation_function", "relu")?;
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let without_final_norm = c.bool_or("_remove_final_layer_norm", false)?;

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
        let mlp = Mlp {
            gate: None,
            up: Linear::new(&name("fc1"), inner, hidden, bias),
            down: Linear::new(&name("fc2"), hidden, inner, bias),
            activation: act,
            xielu: None,
        };
        let mixer = Sublayer::new(norm(name("self_attn_layer_norm")), Mixer::Attention(Box::new(attention)));
        // The layer's second norm; the decoder's own final norm has the same name without the layer.
        let ffn = Sublayer::new(norm(name("final_layer_norm")), Ffn::Dense(Box::new(mlp)));
        Layer { mixer: Some(mixer), ffn: Some(ffn), parallel: false, scalar: None }
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
