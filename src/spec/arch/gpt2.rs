//! GPT-2 (`model_type` "gpt2"). Facts: transformers `modeling_gpt2`; Radford et al. 2019.
//!
//! LayerNorms, learned positions, one fused projection for q, k and v, weights stored [in, out]. Checkpoints have their
//! names with or without `transformer.`; `attn.bias` in them is a causal mask, not a bias.

use super::activation::activation;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Attention, Ffn, Layer, Linear, Mixer, Mlp, Model, Norm, Positions, Qkv, Tensor};
use crate::vocabulary::NormKind;

const LAYER_NORM_EPSILON: f64 = 1e-5;

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
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
        let head_dim = hidden / heads;
        let scale = if scaled { (head_dim as f64).powf(-0.5) } else { 1.0 };
        let attention = Attention {
            heads,
            kv_heads: heads,
            head_dim,
            qkv: Qkv::Fused(Linear::transposed(&name("attn.c_attn"), 3 * hidden, hidden, true)),
            out: Linear::transposed(&name("attn.c_proj"), hidden, hidden, true),
            qk_norm: None,
            clip: None,
            rope: None,
            window: None,
            sinks: None,
            scale: if by_layer { scale / (i + 1) as f64 } else { scale },
            gated: false,
        };
        let mlp = Mlp {
            gate: None,
            up: Linear::transposed(&name("mlp.c_fc"), inner, hidden, true),
            down: Linear::transposed(&name("mlp.c_proj"), hidden, inner, true),
            activation: act,
        };
        Layer {
            input_norm: norm(name("ln_1")),
            mixer: Mixer::Attention(Box::new(attention)),
            ffn_norm: norm(name("ln_2")),
            ffn: Ffn::Dense(Box::new(mlp)),
        }
    };
    let (embedding, head) = names.ends(tied, Tensor::new(format!("{prefix}wte.weight"), [vocab, hidden]));
    Ok(Model {
        model_type: "gpt2".to_string(),
        vocab_size: vocab,
        hidden_size: hidden,
        head,
        tied,
        embedding,
        project_in: None,
        project_out: None,
        positions: Some(Positions {
            weight: Tensor::new(format!("{prefix}wpe.weight"), [max_positions, hidden]),
            offset: 0,
        }),
        layers: (0..layers).map(layer).collect(),
        final_norm: Some(norm(format!("{prefix}ln_f"))),
        max_positions: Some(max_positions),
    })
}
