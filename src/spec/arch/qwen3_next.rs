//! Qwen3-Next (`model_type` "qwen3_next"). Facts: transformers `modeling_qwen3_next`; Qwen3-Next
//! release notes 2025.
//!
//! Three of four layers are Gated DeltaNet, and the fourth is attention with an output gate. All
//! norms but the one inside DeltaNet are zero-centred. The `mtp.` tensors of checkpoints are not
//! part of a forward pass.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::hybrid::Hybrid;
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mlp, Model, Scoring};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults =
    RopeDefaults { partial_rotary_factor: Some(0.25), layer_types: &["full_attention"], ..rope_config::DEFAULTS };
pub(super) const DEFAULTS: Defaults =
    Defaults { num_key_value_heads: Some(2), head_dim: Some(256), rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &DEFAULTS)?;
    let hybrid = Hybrid::from_config(c, &decoder, false)?;
    let act = hybrid.activation;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["num_experts", "num_local_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("moe_intermediate_size")?,
        activation: act,
    };
    let scoring = Scoring::softmax(c.bool_or("norm_topk_prob", true)?);
    let shared = c.size("shared_expert_intermediate_size")?;
    let dense_intermediate = c.size("intermediate_size")?;
    let sparse = experts::sparse_layers(c, decoder.layers)?;
    let layers = (0..decoder.layers).map(|i| {
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            let moe = experts::separate(&prefix, decoder.hidden, sizes, scoring.clone());
            Ffn::Moe(Box::new(experts::with_gated_shared(moe, &prefix, decoder.hidden, shared, act)))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, decoder.hidden, dense_intermediate, act, false)))
        };
        decoder.block(i, hybrid.mixer(&decoder, i), ffn)
    });
    Ok(decoder.model("qwen3_next", layers.collect()))
}
