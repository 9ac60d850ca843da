//! Qwen1.5-MoE and Qwen2-57B-A14B (`model_type` "qwen2_moe"). Facts: transformers
//! `modeling_qwen2_moe`; Qwen2 technical report 2024.
//!
//! Queries, keys and values have biases. A shared expert has a gate. A sliding window, if it is
//! enabled, applies to every second layer below `max_window_layers`.

use super::decoder::{Decoder, Defaults, LLAMA, layer_windows, switched_window};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Linear, Mixer, Mlp, Model, Scoring, SharedExpert};
use crate::vocabulary::NormKind;

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(16), ..LLAMA };
/// The default of `max_window_layers`.
const WINDOW_LAYERS: usize = 28;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("qkv_bias", true)?);
    let window = switched_window(c)?;
    let below = c.opt_usize("max_window_layers")?.unwrap_or(WINDOW_LAYERS);
    let windows = layer_windows(c, decoder.layers, window, |i| window.is_some() && i % 2 == 0 && i < below)?;
    let sizes =
        Sizes::from_config(c, decoder.layers, &["num_experts", "num_local_experts"], &["moe_intermediate_size"])?;
    let scoring = Scoring::softmax(c.bool_or("norm_topk_prob", false)?);
    let (dense, shared) = (c.size("intermediate_size")?, c.size("shared_expert_intermediate_size")?);
    let sparse = experts::sparse_layers(c, decoder.layers)?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.out.bias = None;
        attention.span = windows[i];
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            let mut moe = experts::separate(&prefix, hidden, sizes, scoring.clone());
            moe.shared = Some(SharedExpert {
                mlp: Mlp::gated(&format!("{prefix}shared_expert."), hidden, shared, sizes.activation, false),
                gate: Some(Linear::new(&format!("{prefix}shared_expert_gate"), 1, hidden, false)),
            });
            Ffn::Moe(Box::new(moe))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, hidden, dense, sizes.activation, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("qwen2_moe", layers.collect()))
}
