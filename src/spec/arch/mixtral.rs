//! Mixtral (`model_type` "mixtral"). Facts: transformers `modeling_mixtral`; Jiang et al. 2024.
//!
//! Experts are named w1 (gate), w3 (up), w2 (down). Their weights are always renormalised.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA, sliding_window, span};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Model, Scoring};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { theta: 1_000_000.0, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, num_key_value_heads: Some(8), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let window = sliding_window(c)?;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["num_local_experts", "num_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("intermediate_size")?,
        activation: activation(c, "hidden_act", "silu")?,
    };
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, false);
        attention.span = span(window);
        let prefix = format!("{}block_sparse_moe.", decoder.layer(i));
        let scoring = Scoring::softmax(true);
        let mut moe = experts::separate(&prefix, decoder.hidden, sizes, scoring);
        moe.experts = experts::called(["w1", "w3", "w2"], &prefix, decoder.hidden, sizes);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe)))
    });
    Ok(decoder.model("mixtral", layers.collect()))
}
