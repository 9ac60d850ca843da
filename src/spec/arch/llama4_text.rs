//! Llama 4 (`model_type` "llama4_text", also inside "llama4"). Facts: transformers
//! `modeling_llama4`; Meta 2025.
//!
//! Layers with positions attend within chunks, and normalise queries and keys without a weight
//! after the rotary embedding, which rotates adjacent dimensions. Layers without positions attend
//! to all keys, and their queries grow with the position. Experts are stacked, [in, out]. The
//! sigmoid of a router logit multiplies the input of its expert. A shared expert is added.

use std::sync::Arc;

use serde_json::Value;

use super::activation;
use super::decoder::{Decoder, Defaults, LLAMA, full_attention};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{
    Divisor, Experts, Ffn, HeadNorm, Linear, Mixer, Mlp, Model, Moe, QkNorm, QueryGrowth, Score, Scoring, TensorSpec,
};
use crate::vocabulary::{NormKind, Order, Pairs, Span};

const ROPE: RopeDefaults = RopeDefaults { theta: 500_000.0, pairs: Pairs::Adjacent, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults =
    Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), head_dim: Some(128), rope: ROPE, ..LLAMA };
// The defaults of transformers.
const CHUNK: usize = 8192;
const WITHOUT_ROPE_EVERY: usize = 4;
const GROWTH: (f64, f64) = (0.1, 8192.0);

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("attention_bias", false)?);
    c.without_effect(&["for_llm_compressor"]);
    let normed = c.bool_or("use_qk_norm", true)?;
    // The first releases have a number in place of true.
    let tuned = match c.get("attn_temperature_tuning") {
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        _ => c.bool_or("attn_temperature_tuning", true)?,
    };
    let growth = tuned.then_some(QueryGrowth {
        beta: c.opt_f64("attn_scale")?.unwrap_or(GROWTH.0),
        original: c.opt_f64("floor_scale")?.unwrap_or(GROWTH.1),
        offset: 1,
    });
    let turning = turning_layers(c, decoder.layers)?;
    let full = full_attention(c, decoder.layers, "chunked_attention", |i| !turning[i])?;
    let chunk = match c.opt_usize("attention_chunk_size")? {
        Some(0) => return Err(c.wrong("attention_chunk_size", "is 0")),
        Some(chunk) => chunk,
        None if c.missing("attention_chunk_size") => CHUNK,
        // transformers makes the mask of chunks for every model, whether or not a layer uses it.
        None => {
            return Err(c
                .wrong("attention_chunk_size", "is null: transformers cannot compute the model without chunks either")
                .hint(format!("take it out, which means {CHUNK}, or give the number of the model's release")));
        }
    };
    let sizes = Sizes::from_config(c, decoder.layers, &["num_local_experts", "num_experts"], &["intermediate_size"])?;
    let dense = c.size("intermediate_size_mlp")?;
    let sparse = sparse_layers(c, decoder.layers)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.span = if full[i] { Span::All } else { Span::Chunk(chunk) };
        if turning[i] {
            let norm = || HeadNorm::Unweighted { eps: decoder.eps };
            attention.qk_norm = normed.then(|| QkNorm { q: norm(), k: Some(norm()), after_rope: true });
        } else {
            (attention.rope, attention.growth) = (None, growth);
        }
        let prefix = format!("{}feed_forward.", decoder.layer(i));
        let ffn = if sparse[i] {
            Ffn::Moe(Box::new(mixture(&prefix, hidden, sizes)))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, hidden, dense, sizes.activation, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("llama4_text", layers.collect()))
}

/// Whether each layer has a rotary embedding: its number in `no_rope_layers` is 1; without that
/// list, every `no_rope_layer_interval`-th has none.
fn turning_layers(c: &Config, layers: usize) -> Result<Vec<bool>> {
    let every = c.opt_usize("no_rope_layer_interval")?.unwrap_or(WITHOUT_ROPE_EVERY);
    match c.opt_list_usize("no_rope_layers")?.filter(|list| !list.is_empty()) {
        Some(list) if list.len() != layers => {
            Err(c.wrong("no_rope_layers", &format!("has {} entries for {layers} layers", list.len())))
        }
        Some(list) => Ok(list.into_iter().map(|turns| turns != 0).collect()),
        None if every == 0 => Err(c.wrong("no_rope_layer_interval", "is 0")),
        None => Ok((0..layers).map(|i| (i + 1) % every != 0).collect()),
    }
}

/// Whether each layer has experts: `moe_layers` lists those that do; without that list, every
/// `interleave_moe_layer_step`-th does.
fn sparse_layers(c: &Config, layers: usize) -> Result<Vec<bool>> {
    let step = c.opt_usize("interleave_moe_layer_step")?.unwrap_or(1);
    match c.opt_list_usize("moe_layers")? {
        Some(list) => Ok((0..layers).map(|i| list.contains(&i)).collect()),
        None if step == 0 => Err(c.wrong("interleave_moe_layer_step", "is 0")),
        None => Ok((0..layers).map(|i| (i + 1) % step == 0).collect()),
    }
}

fn mixture(prefix: &str, hidden: usize, sizes: Sizes) -> Moe {
    let mut scoring = Scoring::new(Score::Sigmoid, Divisor::One);
    scoring.on_input = true;
    let mut moe = experts::separate(prefix, hidden, sizes, scoring);
    moe.router.linear = Linear::new(&format!("{prefix}router"), sizes.num_experts, hidden, false);
    let linear = |name: &str, input: usize, out: usize| {
        let weight = TensorSpec::new(format!("{prefix}experts.{name}"), [sizes.num_experts, input, out]);
        Linear { weight, bias: None, order: Order::InOut, rounding: None }
    };
    moe.experts = Arc::new(Experts::Stacked(Mlp {
        gate: None,
        up: linear("gate_up_proj", hidden, 2 * sizes.intermediate),
        down: linear("down_proj", sizes.intermediate, hidden),
        activation: activation::of_halves(sizes.activation),
        xielu: None,
    }));
    moe.shared = experts::shared(&format!("{prefix}shared_expert."), hidden, sizes.intermediate, sizes.activation);
    moe
}
