//! dots.llm1 (`model_type` "dots1"). Facts: transformers `modeling_dots1`; Huo et al. 2025.
//!
//! Qwen3's attention with DeepSeek-V3's mixtures of experts. A sliding window, if there is one,
//! applies from layer `max_window_layers` on.

use super::decoder::{Decoder, Defaults, LLAMA, layer_windows, sliding_window};
use super::experts::{self, Corrected, Grouped, ONE_GROUP};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Mixer, Model};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(32), ..LLAMA };
const ROUTER: Grouped = Grouped { renormalised: false, ..ONE_GROUP };
// The defaults of `sliding_window` and `max_window_layers` in transformers.
const SLIDING_WINDOW: usize = 4096;
const WINDOW_LAYERS: usize = 62;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let bias = c.bool_or("attention_bias", false)?;
    // Releases have "noaux_tc" for the score, which is a sigmoid. The switch of the window is not
    // read.
    c.without_effect(&["scoring_func", "use_sliding_window"]);
    c.only("topk_method", "noaux_tc".into())?;
    c.only("moe_layer_freq", 1.into())?;
    let window = sliding_window(c)?.or(Some(SLIDING_WINDOW).filter(|_| c.missing("sliding_window")));
    let first = c.opt_usize("max_window_layers")?.unwrap_or(WINDOW_LAYERS);
    let windows = layer_windows(c, decoder.layers, window, |i| window.is_some() && i >= first)?;
    let networks = Corrected::from_config(c, (decoder.hidden, decoder.layers), &ROUTER)?;
    let sparse = experts::behind_dense(c, decoder.layers, c.opt_usize("first_k_dense_replace")?.unwrap_or(0))?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        attention.span = windows[i];
        let ffn = networks.ffn(&format!("{}mlp.", decoder.layer(i)), sparse[i]);
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("dots1", layers.collect()))
}
