//! Phi-3.5-MoE (`model_type` "phimoe"). Facts: transformers `modeling_phimoe`; Abdin et al. 2024.
//!
//! LayerNorms with biases, and biases in attention and head. Two experts, with Mixtral's names, are
//! chosen one after the other. Each is weighted among the experts whose logits are close to its
//! own.

use super::decoder::{Decoder, Defaults, LLAMA, sliding_window, span};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::{Error, Result};
use crate::spec::config::Config;
use crate::spec::rope::{Rope, Scaling};
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Divisor, Ffn, MaxPositions, Mixer, Model, Score, Scoring, TensorSpec};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults {
    theta: 1_000_000.0,
    read_elsewhere: &["short_mscale", "long_mscale"],
    longrope: &["su"],
    ..rope_config::DEFAULTS
};
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), rope: ROPE, ..LLAMA };
/// The default of `router_jitter_noise`.
const JITTER: f64 = 0.01;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let mut decoder = Decoder::from_config(c, names, NormKind::Layer, &DEFAULTS)?;
    let max_positions = magnitudes(c, &mut decoder.rope)?;
    let (bias, head_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("lm_head_bias", false)?);
    let window = sliding_window(c)?;
    // This is noise for training.
    c.without_effect(&["input_jitter_noise"]);
    let jitter = c.opt_f64("router_jitter_noise")?.unwrap_or(JITTER) as f32;
    let sizes = Sizes::from_config(c, decoder.layers, &["num_local_experts", "num_experts"], &["intermediate_size"])?;
    if sizes.top_k != 2 {
        return Err(c.uncomputed("num_experts_per_tok", &format!("is {}; the router chooses two experts", sizes.top_k)));
    }
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.span = span(window);
        let prefix = format!("{}block_sparse_moe.", decoder.layer(i));
        let scoring = Scoring::new(Score::SparseMixer { jitter }, Divisor::One);
        let mut moe = experts::separate(&prefix, decoder.hidden, sizes, scoring);
        moe.experts = experts::called(["w1", "w3", "w2"], &prefix, decoder.hidden, sizes);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe)))
    });
    let mut model = decoder.model("phimoe", layers.collect());
    model.max_positions = max_positions;
    model.head_bias = head_bias.then(|| TensorSpec::new("lm_head.bias", [model.vocab_size]));
    Ok(model)
}

/// The factors of LongRoPE in these models: `short_mscale` multiplies cosines and sines.
/// transformers computes long sequences with `long_mscale` but the frequencies of short ones, so
/// longer sequences are refused if the two factors differ. A missing factor has the usual value of
/// LongRoPE.
fn magnitudes(c: &Config, rope: &mut Rope) -> Result<Option<MaxPositions>> {
    let Scaling::LongRope { short, long, original, attention_factor } = &mut rope.scaling else { return Ok(None) };
    let usual = *attention_factor;
    let magnitude = |name| Ok::<f64, Error>(rope_config::opt_parameter(c, &DEFAULTS.rope, name)?.unwrap_or(usual));
    let (of_short, of_long) = (magnitude("short_mscale")?, magnitude("long_mscale")?);
    (*long, *attention_factor) = (short.clone(), of_short);
    let why = "longer ones turn by cosines and sines of another magnitude, which is not computed";
    Ok((of_short != of_long).then_some(MaxPositions { positions: *original as usize, why }))
}
