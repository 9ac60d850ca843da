//! OLMo 3 (`model_type` "olmo3"). Facts: transformers `modeling_olmo3`; Team Olmo 2025, "Olmo 3".
//!
//! As OLMo 2. Three of four layers have a sliding window and unscaled rotary frequencies. The
//! others attend to all keys with scaled ones.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, POST_NORMS, layer_windows, window_or};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::Rope;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::{NormKind, Span};

const ROPE: RopeDefaults =
    RopeDefaults { theta: 5e5, layer_types: &["full_attention", "sliding_attention"], ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, rope: ROPE, rope_of: Some("full_attention"), ..LLAMA };
const SLIDING_WINDOW: usize = 4096;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsRoundedOnce, &DEFAULTS)?;
    // Olmo3Config applies `rope_theta` only to the other layers. Releases have the same base for
    // all.
    let local = Rope::of_type(c, decoder.heads.head_dim, "sliding_attention", false, &ROPE)?;
    let spans = layer_windows(c, decoder.layers, window_or(c, SLIDING_WINDOW)?, |i| (i + 1) % 4 != 0)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let bias = c.bool_or("attention_bias", false)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, false));
        attention.span = spans[i];
        if spans[i] != Span::All {
            attention.rope = Some(local.clone());
        }
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.post_norm_block(i, POST_NORMS, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("olmo3", layers.collect()))
}
