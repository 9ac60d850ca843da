//! Qwen3.5 (`model_type` "qwen3_5_text" and "qwen3_5_moe_text", inside "qwen3_5" and
//! "qwen3_5_moe"). Facts: transformers `modeling_qwen3_5`, `modeling_qwen3_5_moe`.
//!
//! Qwen3-Next with separate projections of a DeltaNet. Either all layers are dense, or all have
//! experts.

use super::decoder::{Decoder, Defaults};
use super::experts::{self, Sizes};
use super::hybrid::Hybrid;
use super::names::Names;
use super::qwen3_next::DEFAULTS;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Ffn, Mlp, Model, Scoring};
use crate::vocabulary::NormKind;

/// Keys for layers of multi-token prediction, which are not part of a forward pass, for positions
/// in images, which are equal for a text, and keys for which transformers has fixed values.
const WITHOUT_EFFECT: &[&str] = &[
    "mtp_num_hidden_layers",
    "mtp_use_dedicated_embeddings",
    "mamba_ssm_dtype",
    "router_aux_loss_coef",
    "output_router_logits",
    "mlp_only_layers",
];

pub(super) fn dense(c: &Config, names: &dyn Names) -> Result<Model> {
    let defaults = Defaults { num_key_value_heads: Some(4), ..DEFAULTS };
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &defaults)?;
    let hybrid = hybrid(c, &decoder)?;
    let intermediate = c.size("intermediate_size")?;
    let layers = (0..decoder.layers).map(|i| {
        let prefix = format!("{}mlp.", decoder.layer(i));
        let mlp = Mlp::gated(&prefix, decoder.hidden, intermediate, hybrid.activation, false);
        decoder.block(i, hybrid.mixer(&decoder, i), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("qwen3_5_text", layers.collect()))
}

pub(super) fn mixture(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::RmsZeroCentred, &DEFAULTS)?;
    let hybrid = hybrid(c, &decoder)?;
    let top_k = c.size("num_experts_per_tok")?;
    let sizes = Sizes {
        num_experts: c.experts(&["num_experts", "num_local_experts"], top_k, decoder.layers)?,
        top_k,
        intermediate: c.size("moe_intermediate_size")?,
        activation: hybrid.activation,
    };
    c.only("norm_topk_prob", true.into())?;
    let shared = c.size("shared_expert_intermediate_size")?;
    let layers = (0..decoder.layers).map(|i| {
        let prefix = format!("{}mlp.", decoder.layer(i));
        let moe = experts::separate(&prefix, decoder.hidden, sizes, Scoring::softmax(true));
        let moe = experts::with_gated_shared(moe, &prefix, decoder.hidden, shared, hybrid.activation);
        decoder.block(i, hybrid.mixer(&decoder, i), Ffn::Moe(Box::new(moe)))
    });
    Ok(decoder.model("qwen3_5_moe_text", layers.collect()))
}

fn hybrid(c: &Config, decoder: &Decoder) -> Result<Hybrid> {
    c.only("attn_output_gate", true.into())?;
    c.without_effect(WITHOUT_EFFECT);
    Hybrid::from_config(c, decoder, true)
}
