//! Phi-3, Phi-3.5 and Phi-4 (`model_type` "phi3"). Facts: transformers `modeling_phi3`; Abdin et
//! al. 2024.
//!
//! Llama with joint projections: queries, keys and values, and gate and up. A sliding window, if
//! there is one, applies to every layer. Long contexts use LongRoPE, which older configs call "su"
//! or "yarn".

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, sliding_window, span};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Linear, Mixer, Mlp, Model, Qkv};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults {
    partial_rotary_factor: Some(1.0),
    original: Some(4096.0),
    longrope: &["su", "yarn"],
    ..rope_config::DEFAULTS
};
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, rope: ROPE, ..LLAMA };
/// Keys for Microsoft's own code, which `modeling_phi3` does not read.
const UNREAD: &[&str] = &["attention_bias", "mlp_bias", "lm_head_bias", "full_attn_mod", "interpolate_factor"];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let span = span(sliding_window(c)?);
    c.without_effect(UNREAD);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, false);
        let rows = (attention.heads + 2 * attention.kv_heads) * attention.head_dim;
        let name = format!("{}self_attn.qkv_proj", decoder.layer(i));
        attention.qkv = Qkv::Fused(Linear::new(&name, rows, decoder.hidden, false));
        attention.span = span;
        let mlp = Mlp::gate_up(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("phi3", layers.collect()))
}
