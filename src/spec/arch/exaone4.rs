//! EXAONE 4.0 (`model_type` "exaone4"). Facts: transformers `modeling_exaone4`; LG AI Research
//! 2025.
//!
//! Norms follow attention and feed-forward network, as in OLMo 2. Query and key norms are per head.
//! If some layers have a sliding window, the others have no rotary embedding.

use serde_json::Value;

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, POST_NORMS, layer_windows, window_or};
use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::{NormKind, Span};

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(32), ..LLAMA };
const SLIDING_WINDOW: usize = 4096;
const PATTERN: &str = "sliding_window_pattern";

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let window = window_or(c, SLIDING_WINDOW)?;
    let pattern = if c.has("layer_types") || window.is_none() { Vec::new() } else { pattern(c)? };
    // The list of layers decides, not this key.
    c.without_effect(&[PATTERN]);
    let by_letters = c.get(PATTERN).is_some_and(Value::is_string);
    let sliding = |i: usize| match pattern.is_empty() {
        true => false,
        // In a pattern of letters, the last layer attends to all keys.
        false => pattern[i % pattern.len()] && !(by_letters && i + 1 == decoder.layers),
    };
    let spans = layer_windows(c, decoder.layers, window, sliding)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, false);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        attention.span = spans[i];
        if window.is_some() && spans[i] == Span::All {
            attention.rope = None;
        }
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.post_norm_block(i, POST_NORMS, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("exaone4", layers.collect()))
}

/// Whether each layer of a period has a window: a number means that the last of so many has none,
/// letters describe each layer ("LLLG": three local ones, then a global one).
fn pattern(c: &Config) -> Result<Vec<bool>> {
    let Some(Value::String(letters)) = c.get(PATTERN) else {
        let every = c.opt_usize(PATTERN)?.unwrap_or(4).max(1);
        return Ok((1..=every).map(|i| i != every).collect());
    };
    let sliding = |letter| match letter {
        'L' => Ok(true),
        'G' => Ok(false),
        _ => Err(c.wrong(PATTERN, &format!("is \"{}\"; known are the letters L and G", shown(letters)))),
    };
    letters.chars().map(sliding).collect()
}
