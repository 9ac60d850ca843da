//! Gemma 3 (`model_type` "gemma3_text", and "gemma3" around it). Facts: transformers
//! `modeling_gemma3`; Gemma Team 2025.
//!
//! As Gemma 2, with norms of queries and keys in place of softcaps. Layers with a sliding window
//! use `rope_local_base_freq`. Every sixth layer attends to all keys and uses `rope_theta`, scaled.
//! Attention is causal, also in multimodal models, whose config leaves out most sizes.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, GEMMA_NORMS, LLAMA, layer_windows, window_or};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::Rope;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model};
use crate::vocabulary::{NormKind, Span};

const FULL: RopeDefaults =
    RopeDefaults { theta: 1e6, layer_types: &["full_attention", "sliding_attention"], ..rope_config::DEFAULTS };
const SLIDING: RopeDefaults = RopeDefaults { theta: 1e4, theta_key: "rope_local_base_freq", ..FULL };
const DEFAULTS: Defaults = Defaults {
    tied: true,
    vocab_size: Some(262_208),
    num_attention_heads: Some(8),
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    rope: FULL,
    rope_of: Some("full_attention"),
    ..LLAMA
};
const SLIDING_WINDOW: usize = 4096;
const SOFTCAP: &str = "attn_logit_softcapping";

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &DEFAULTS)?;
    let local = Rope::of_type(c, decoder.heads.head_dim, "sliding_attention", false, &SLIDING)?;
    let every = c.opt_usize("sliding_window_pattern")?.unwrap_or(6).max(1);
    let spans = layer_windows(c, decoder.layers, window_or(c, SLIDING_WINDOW)?, |i| (i + 1) % every != 0)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    let bias = c.bool_or("attention_bias", false)?;
    let scale = c.opt_f64("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        (attention.span, attention.scale) = (spans[i], scale);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        if spans[i] != Span::All {
            attention.rope = Some(local.clone());
        }
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.sandwich_block(i, GEMMA_NORMS, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    let mut model = decoder.model("gemma3_text", layers.collect());
    model.embedding_factor = (decoder.hidden as f64).sqrt();
    model.logit_softcap = c.opt_f64("final_logit_softcapping")?;
    // Gemma 2 reads it. Here it is kept, and attention gets no cap.
    if c.opt_f64(SOFTCAP)?.is_some() {
        c.tell(SOFTCAP, "changes nothing: attention of this model has no cap");
    }
    Ok(model)
}
