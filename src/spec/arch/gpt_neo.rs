//! GPT-Neo (`model_type` "gpt_neo"). Facts: transformers `modeling_gpt_neo`; Black et al. 2021.
//!
//! LayerNorms, learned positions, and layers with and without a window. Scores are not divided by
//! the root of the head size. `attn.attention.bias` and `masked_bias` in files are a causal mask.

use serde_json::Value;

use super::activation::activation;
use super::decoder::{head_size, span};
use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{Attention, Ffn, Layer, Linear, MaxPositions, Mixer, Mlp, Model, Norm, Positions, Qkv, TensorSpec};
use crate::vocabulary::{NormKind, Span};

/// The default of `window_size`.
const WINDOW: usize = 256;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (vocab, hidden) = (c.size("vocab_size")?, c.size("hidden_size")?);
    let layers = c.layers(&["num_layers", "num_hidden_layers"])?;
    let heads = c.size_by(&["num_heads", "num_attention_heads"])?;
    let head_dim = head_size(c, "num_heads", heads, hidden)?;
    let positions = c.size("max_position_embeddings")?;
    let inner = c.opt_usize("intermediate_size")?.unwrap_or(4 * hidden);
    let act = activation(c, "activation_function", "gelu_new")?;
    let eps = c.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5);
    let tied = c.bool_or("tie_word_embeddings", true)?;
    c.without_effect(&["embed_dropout", "resid_dropout"]);
    let spans = spans(c, layers)?;

    let norm = |name: &str| Norm::new(NormKind::Layer, &format!("transformer.{name}"), hidden, eps);
    let layer = |(i, span): (usize, Span)| {
        let linear = |part: &str, out, input, bias| Linear::new(&format!("transformer.h.{i}.{part}"), out, input, bias);
        let square = |part: &str, bias| linear(&format!("attn.attention.{part}"), hidden, hidden, bias);
        let qkv = Qkv::Separate { q: square("q_proj", false), k: square("k_proj", false), v: square("v_proj", false) };
        let mut attention = Attention::new((heads, heads, head_dim), qkv, square("out_proj", true));
        (attention.scale, attention.span) = (1.0, span);
        let (up, down) = (linear("mlp.c_fc", inner, hidden, true), linear("mlp.c_proj", hidden, inner, true));
        let (mixer, ffn) = (Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(Mlp::ungated(up, down, act))));
        Layer::of_two_norms(["ln_1", "ln_2"].map(|part| norm(&format!("h.{i}.{part}"))), mixer, ffn)
    };
    let ends = names.ends(tied, TensorSpec::new("transformer.wte.weight", [vocab, hidden]));
    let layers = spans.into_iter().enumerate().map(layer).collect();
    let mut model = Model::new("gpt_neo", hidden, ends, layers, norm("ln_f"));
    let weight = TensorSpec::new("transformer.wpe.weight", [positions, hidden]);
    model.positions = Some(Positions { weight, offset: 0 });
    model.max_positions = Some(MaxPositions::learned(positions));
    Ok(model)
}

/// The spans of the layers: "global" or "local", from `attention_layers`, or from
/// `attention_types`, pairs of a list of kinds and its number of repetitions.
fn spans(c: &Config, layers: usize) -> Result<Vec<Span>> {
    let window = c.opt_usize("window_size")?.unwrap_or(WINDOW);
    if window == 0 {
        return Err(c.wrong("window_size", "is 0"));
    }
    let types = c.get("attention_types");
    let (key, kinds) = match c.opt_list_str("attention_layers")? {
        Some(kinds) => ("attention_layers", kinds),
        None => {
            let kinds = types.map_or_else(|| Some(alternating(layers)), |types| expanded(types, layers));
            let problem = "is no list of pairs such as [[\"global\", \"local\"], 12]";
            ("attention_types", kinds.ok_or_else(|| c.wrong("attention_types", problem))?)
        }
    };
    if kinds.len() != layers {
        return Err(c.wrong(key, &format!("has {} entries for {layers} layers", kinds.len())));
    }
    let of = |kind: &String| match kind.as_str() {
        "global" => Ok(Span::All),
        "local" => Ok(span(Some(window))),
        other => Err(c.uncomputed(key, &format!("has \"{}\"; supported are global, local", shown(other)))),
    };
    kinds.iter().map(of).collect()
}

fn alternating(layers: usize) -> Vec<String> {
    ["global", "local"].into_iter().cycle().take(layers).map(str::to_string).collect()
}

/// The kinds of all layers. There may be one more than `layers`.
fn expanded(types: &Value, layers: usize) -> Option<Vec<String>> {
    let mut kinds = Vec::new();
    for pair in types.as_array()? {
        if kinds.len() > layers {
            break;
        }
        let [once, times] = pair.as_array()?.as_slice() else { return None };
        let once = once.as_array()?.iter().map(|kind| kind.as_str().map(str::to_string)).collect::<Option<Vec<_>>>()?;
        let times = usize::try_from(times.as_u64()?).ok()?.min(layers + 1);
        kinds.extend(once.iter().cycle().take(times.saturating_mul(once.len()).min(layers + 1)).cloned());
    }
    Some(kinds)
}
