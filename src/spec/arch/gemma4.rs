//! Gemma 4 (`model_type` "gemma4_text", inside "gemma4"). Facts: transformers `modeling_gemma4`;
//! Google 2026.
//!
//! Norms precede and follow attention and feed-forward network, and a factor multiplies the stream
//! after each layer. Layers with a window and layers without have heads of different sizes. The
//! keys of the latter may also be their values, and only some of their pairs of dimensions are
//! rotated. The small sizes (E2B, E4B) have embeddings for each layer, and their last layers use
//! the keys and values of earlier ones. The mixture (26B-A4B) is refused.

use super::activation::activation;
use super::decoder::{GEMMA_NORMS, full_attention, head_count, sliding_window, span};
use super::names::Names;
use super::per_layer::{PerLayer, lenders};
use crate::error::Result;
use crate::outside;
use crate::spec::config::{Config, shown};
use crate::spec::rope::{Rope, Scaling};
use crate::spec::{Attention, Ffn, HeadNorm, Layer, Linear, Mixer, Mlp, Model, Norm, QkNorm, Qkv, TensorSpec};
use crate::vocabulary::{NormKind, Pairs};

const SLIDING_WINDOW: usize = 512;
const GLOBAL_HEAD_DIM: usize = 512;
/// The largest width of a head in `per_layer_config`. Released models have at most 512 dimensions.
const MAX_WIDTH: u64 = 1 << 16;
/// Every layer with this number has no window, and neither has the last.
const PATTERN: usize = 6;

/// The properties of the layers of one kind.
struct Kind {
    head_dim: usize,
    kv_heads: usize,
    key_is_value: bool,
    window: Option<usize>,
    rope: Rope,
}

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    for key in ["enable_moe_block", "attention_bias"] {
        c.only(key, false.into())?;
    }
    c.without_effect(&["max_position_embeddings", "moe_intermediate_size", "num_experts", "top_k_experts"]);
    // Tokens of images attend to each other, but a text has none.
    c.only("use_bidirectional_attention", "vision".into())?;
    let (vocab, hidden, heads) = (c.size("vocab_size")?, c.size("hidden_size")?, c.size("num_attention_heads")?);
    let intermediate = c.size("intermediate_size")?;
    let eps = c.opt_f64("rms_norm_eps")?.unwrap_or(1e-6);
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    let count = c.layers(&["num_hidden_layers"])?;
    let mut full = full_attention(c, count, "sliding_attention", |i| (i + 1) % PATTERN == 0 || i + 1 == count)?;
    if let Some(last) = full.last_mut().filter(|full| !**full) {
        *last = true;
        c.tell(
            "layer_types",
            "gives the last layer a window, which has no effect: as in transformers, it sees everything",
        );
    }
    let kinds = kinds(c, heads, &full)?;
    let lenders = lenders(c, &full)?;
    let wide = c.bool_or("use_double_wide_mlp", false)?;
    let own = PerLayer::from_config(c, vocab, hidden, eps)?;
    let norm = |name: &str, size| Norm::new(NormKind::RmsRoundedOnce, name, size, eps);
    let layer = |i: usize| {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let Kind { head_dim, kv_heads, key_is_value, window, rope } = &kinds[usize::from(full[i])];
        let linear = |part: &str, out, input| Linear::new(&name(part), out, input, false);
        let q = linear("self_attn.q_proj", heads * head_dim, hidden);
        let kv = |part: &str| linear(part, kv_heads * head_dim, hidden);
        let qkv = match (lenders[i], key_is_value) {
            (Some(from), _) => Qkv::Borrowed { q, from },
            (None, true) => Qkv::KeyIsValue { q, k: kv("self_attn.k_proj") },
            (None, false) => Qkv::Separate { q, k: kv("self_attn.k_proj"), v: kv("self_attn.v_proj") },
        };
        let out = linear("self_attn.o_proj", hidden, heads * head_dim);
        let mut attention = Attention::new((heads, *kv_heads, *head_dim), qkv, out);
        let of_heads = |part: &str| HeadNorm::Each(norm(&name(part), *head_dim));
        let k = lenders[i].is_none().then(|| of_heads("self_attn.k_norm"));
        attention.qk_norm = Some(QkNorm { q: of_heads("self_attn.q_norm"), k, after_rope: false });
        attention.value_norm = Some(eps);
        attention.rope = Some(rope.clone());
        attention.span = span(*window);
        attention.scale = 1.0;
        let inner = if wide && lenders[i].is_some() { 2 * intermediate } else { intermediate };
        let mlp = Mlp::gated(&name("mlp."), hidden, inner, act, false);
        let norms = GEMMA_NORMS.map(|part| norm(&name(part), hidden));
        let mut layer = Layer::of_four_norms(norms, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)));
        layer.embedding_gate = own.map(|own| own.gate(i, act));
        layer.scalar = Some(TensorSpec::new(name("layer_scalar"), [1]));
        layer
    };
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let ends = names.ends(tied, TensorSpec::new("model.embed_tokens.weight", [vocab, hidden]));
    let layers = (0..count).map(layer).collect();
    let mut model = Model::new("gemma4_text", hidden, ends, layers, norm("model.norm", hidden));
    model.embedding_factor = (hidden as f64).sqrt();
    model.logit_softcap = c.opt_f64("final_logit_softcapping")?;
    model.layer_embeddings = own.map(|own| own.embeddings(count));
    Ok(model)
}

/// The kinds of layers: with a window, and without.
fn kinds(c: &Config, heads: usize, full: &[bool]) -> Result<[Kind; 2]> {
    let head_dim = c.opt_usize("head_dim")?.unwrap_or(256);
    let kv_heads = head_count(c, "num_key_value_heads", c.size("num_key_value_heads")?, heads)?;
    let key_is_value = c.bool_or("attention_k_eq_v", false)?;
    let global_dim = c.opt_usize("global_head_dim")?.unwrap_or(GLOBAL_HEAD_DIM);
    let global_heads = c.opt_usize("num_global_key_value_heads")?.filter(|_| key_is_value).unwrap_or(kv_heads);
    let (global_dim, global_heads) = match overrides(c, full)? {
        Some([dim, count]) => (dim.unwrap_or(head_dim), count.unwrap_or(kv_heads)),
        None => (global_dim, global_heads),
    };
    head_count(c, "num_global_key_value_heads", global_heads, heads)?;
    for (key, dim) in [("head_dim", head_dim), ("global_head_dim", global_dim)] {
        if dim == 0 || dim % 2 != 0 {
            return Err(c.wrong(key, &format!("is {dim}, not an even number")));
        }
    }
    let (mut sliding, mut full) = ((10_000.0, 1.0), (1_000_000.0, 0.25));
    if let Some(ropes) = c.section("rope_parameters")? {
        for (key, kind, of) in
            [("sliding_attention", "default", &mut sliding), ("full_attention", "proportional", &mut full)]
        {
            let Some(rope) = ropes.section(key)? else { continue };
            rope.only("rope_type", kind.into())?;
            *of = (rope.opt_f64("rope_theta")?.unwrap_or(of.0), rope.opt_f64("partial_rotary_factor")?.unwrap_or(1.0));
            rope.finish_section()?;
        }
        ropes.finish_section()?;
    }
    let turning = (full.1 * global_dim as f64 / 2.0) as usize;
    let rope = |theta, dim, scaling| Rope { theta, dim, pairs: Pairs::Halves, scaling };
    let (window, all) = (sliding_window(c)?.or(Some(SLIDING_WINDOW)), Scaling::Proportional { turning });
    let (with, without) = (rope(sliding.0, head_dim, Scaling::None), rope(full.0, global_dim, all));
    Ok([
        Kind { head_dim, kv_heads, key_is_value: false, window, rope: with },
        Kind { head_dim: global_dim, kv_heads: global_heads, key_is_value, window: None, rope: without },
    ])
}

/// The size and number of the key heads of layers without a window in `per_layer_config`.
/// transformers 5 writes this object in place of `global_head_dim` and
/// `num_global_key_value_heads`, and it has precedence over them. It has, by number of layer, the
/// values that differ from those of other layers.
fn overrides(c: &Config, full: &[bool]) -> Result<Option<[Option<usize>; 2]>> {
    const KEY: &str = "per_layer_config";
    const NAMES: [&str; 2] = ["head_dim", "num_key_value_heads"];
    let Some(value) = c.get(KEY) else { return Ok(None) };
    let Some(layers) = value.as_object() else {
        return Err(c.wrong(KEY, &format!("is {}, expected an object", shown(value))));
    };
    let mut all = vec![[None; 2]; full.len()];
    for (layer, settings) in layers {
        let own = layer.parse().ok().and_then(|layer: usize| all.get_mut(layer));
        let (Some(own), Some(settings)) = (own, settings.as_object()) else {
            return Err(c.wrong(KEY, &format!("has \"{}\", no settings of one of the layers", outside::shown(layer))));
        };
        for (name, value) in settings {
            let at = NAMES.iter().position(|known| known == name);
            let number = value.as_u64().filter(|number| *number <= MAX_WIDTH).map(|number| number as usize);
            let (Some(at), Some(_)) = (at, number) else {
                let problem = format!("asks for `{}`: {} in a layer", outside::shown(name), shown(value));
                return Err(c.wrong(KEY, &format!("{problem}; supported are numbers for {}", NAMES.join(", "))));
            };
            own[at] = number;
        }
    }
    let of_kind = |kind| all.iter().zip(full).filter(move |(_, full)| **full == kind).map(|(own, _)| *own);
    let first = of_kind(true).next().unwrap_or_default();
    match of_kind(false).all(|own| own == [None; 2]) && of_kind(true).all(|own| own == first) {
        true => Ok(Some(first)),
        false => Err(c.wrong(KEY, "is not the same for all layers without a window, and nothing for the others")),
    }
}
