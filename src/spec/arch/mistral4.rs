//! Mistral Small 4 (`model_type` "mistral4", also inside "mistral3"). Facts: transformers
//! `modeling_mistral4`.
//!
//! DeepSeek-V3's latent attention, with queries that grow with their position. Experts are stacked
//! in one tensor and chosen by softmax scores within the best groups. Shared experts are added.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Grouped, ONE_GROUP, Sizes};
use super::latent::{self, LatentHeads};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Mixer, Mlp, Model, QueryGrowth, Score};
use crate::vocabulary::NormKind;

const ROUTER: Grouped = Grouped { score: Score::Softmax, masked: 0.0, ..ONE_GROUP };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let (nope, turning) = (c.size("qk_nope_head_dim")?, c.size("qk_rope_head_dim")?);
    let rope = RopeDefaults {
        pairs: latent::pairs(c)?,
        partial_rotary_factor: Some(turning as f64 / (nope + turning) as f64),
        read_elsewhere: &["llama_4_scaling_beta", "max_position_embeddings"],
        parameters: Some(
            r#"{"rope_type": "yarn", "rope_theta": 1e4, "factor": 128, "original_max_position_embeddings": 8192, "beta_fast": 32,
                "beta_slow": 1, "mscale": 1, "mscale_all_dim": 1, "llama_4_scaling_beta": 0.1}"#,
        ),
        ..rope_config::DEFAULTS
    };
    let defaults = Defaults { rope, ..LLAMA };
    let (heads, turning) = LatentHeads::from_config(c, &defaults.rope)?;
    let growth = QueryGrowth {
        beta: rope_config::parameter(c, &defaults.rope, "llama_4_scaling_beta")?,
        original: rope_config::original(c, &defaults.rope)?,
        offset: 0,
    };
    let decoder = Decoder::with_heads(c, names, NormKind::Rms, &defaults, turning)?;
    let hidden = decoder.hidden;
    let sizes =
        Sizes::from_config(c, decoder.layers, &["n_routed_experts", "num_local_experts"], &["moe_intermediate_size"])?;
    let scoring = ROUTER.scoring(c, sizes)?;
    let shared = c.opt_usize("n_shared_experts")?.unwrap_or(1) * sizes.intermediate;
    let dense = c.size("intermediate_size")?;
    let sparse = experts::behind_dense(c, decoder.layers, c.opt_usize("first_k_dense_replace")?.unwrap_or(0))?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = heads.attention(&decoder, i);
        attention.growth = Some(growth);
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            let mut moe = experts::separate(&prefix, hidden, sizes, scoring.clone());
            let [gate_up, down] = ["gate_up_proj", "down_proj"].map(|name| format!("{prefix}experts.{name}"));
            moe.experts = experts::stacked(&gate_up, &down, hidden, sizes);
            moe.shared = experts::shared(&format!("{prefix}shared_experts."), hidden, shared, sizes.activation);
            Ffn::Moe(Box::new(moe))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, hidden, dense, sizes.activation, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(attention)), ffn)
    });
    Ok(decoder.model("mistral4", layers.collect()))
}
