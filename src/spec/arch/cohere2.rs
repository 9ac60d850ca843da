//! Cohere's Command R7B, Command A and Aya (`model_type` "cohere2"). Facts: transformers
//! `modeling_cohere2`; Cohere 2025, "Command A".
//!
//! As the first generation, with sliding windows in three layers of four. Those have a rotary
//! embedding, and the others have no positions.

use super::cohere::{DEFAULTS, parallel};
use super::decoder::{Decoder, layer_windows, sliding_window};
use super::names::Names;
use crate::error::Result;
use crate::spec::Model;
use crate::spec::config::Config;
use crate::vocabulary::{NormKind, Span};

/// The default of `sliding_window`.
const WINDOW: usize = 4096;
/// The default of `sliding_window_pattern`: every layer with this number attends to all keys.
const PATTERN: usize = 4;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Layer, &DEFAULTS)?;
    let pattern = match c.opt_usize("sliding_window_pattern")?.unwrap_or(PATTERN) {
        0 => return Err(c.wrong("sliding_window_pattern", "is 0")),
        pattern => pattern,
    };
    let window = sliding_window(c)?.or(Some(WINDOW).filter(|_| c.missing("sliding_window")));
    let spans = layer_windows(c, decoder.layers, window, |i| (i + 1) % pattern != 0)?;
    // Keys of Cohere's own code, whose values are fixed in the modeling file.
    c.only("use_qk_norm", false.into())?;
    c.only("use_gated_activation", true.into())?;
    c.only("use_parallel_block", true.into())?;
    c.only("position_embedding_type", "rope_gptj".into())?;
    c.only("order_of_interleaved_layers", "local_attn_first".into())?;
    c.without_effect(&["layer_switch", "use_embedding_sharing", "use_parallel_embedding"]);
    parallel(c, "cohere2", &decoder, |i, attention| {
        attention.span = spans[i];
        if spans[i] == Span::All {
            attention.rope = None;
        }
    })
}
