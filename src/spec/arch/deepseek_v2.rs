//! DeepSeek-V2 and its Lite and Coder (`model_type` "deepseek_v2"). Facts: transformers
//! `modeling_deepseek_v2`; DeepSeek-AI 2024.
//!
//! Multi-head latent attention. Experts are chosen by softmax scores, which are also their weights.
//! `group_limited_greedy` chooses within the groups that have the best single experts. Shared
//! experts are added.

use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::latent::LatentHeads;
use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, Groups, Mixer, Mlp, Model, Scoring};
use crate::vocabulary::{NormKind, Pairs};

const ROPE: RopeDefaults = RopeDefaults { pairs: Pairs::Adjacent, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.only("rope_interleave", true.into())?;
    let (heads, turning) = LatentHeads::from_config(c, &DEFAULTS.rope)?;
    let decoder = Decoder::with_heads(c, names, NormKind::Rms, &DEFAULTS, turning)?;
    c.without_effect(&["ep_size"]);
    c.only("mlp_bias", false.into())?;
    c.only("scoring_func", "softmax".into())?;
    experts::summed_anyway(c, "norm_topk_prob", false)?;
    c.only("moe_layer_freq", 1.into())?;
    let sizes =
        Sizes::from_config(c, decoder.layers, &["n_routed_experts", "num_local_experts"], &["moe_intermediate_size"])?;
    let scoring = scoring(c, sizes)?;
    let shared = c.opt_usize("n_shared_experts")?.unwrap_or(2) * sizes.intermediate;
    let dense = c.size("intermediate_size")?;
    let sparse = experts::behind_dense(c, decoder.layers, c.opt_usize("first_k_dense_replace")?.unwrap_or(0))?;
    let layers = (0..decoder.layers).map(|i| {
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if sparse[i] {
            let mut moe = experts::separate(&prefix, decoder.hidden, sizes, scoring.clone());
            moe.shared = experts::shared(&format!("{prefix}shared_experts."), decoder.hidden, shared, sizes.activation);
            Ffn::Moe(Box::new(moe))
        } else {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, decoder.hidden, dense, sizes.activation, false)))
        };
        decoder.block(i, Mixer::Attention(Box::new(heads.attention(&decoder, i))), ffn)
    });
    Ok(decoder.model("deepseek_v2", layers.collect()))
}

fn scoring(c: &Config, sizes: Sizes) -> Result<Scoring> {
    let mut scoring = Scoring::softmax(false);
    scoring.factor = c.opt_f64("routed_scaling_factor")?.unwrap_or(1.0) as f32;
    let method = c.opt_str("topk_method")?.unwrap_or_else(|| "greedy".to_string());
    let (count, top) = (c.opt_usize("n_group")?, c.opt_usize("topk_group")?);
    match method.as_str() {
        "greedy" => {}
        "group_limited_greedy" => {
            let (count, top) = (count.unwrap_or(1), top.unwrap_or(1));
            if count == 0 || !sizes.num_experts.is_multiple_of(count) {
                return Err(c.wrong("n_group", &format!("is {count}, which does not divide the experts")));
            }
            if top == 0 || top > count || sizes.top_k > top * (sizes.num_experts / count) {
                return Err(c.wrong("topk_group", &format!("is {top}: too few or too many of {count} groups")));
            }
            scoring.groups = Some(Groups { count, top, judged_by: 1, masked: 0.0 });
        }
        other => {
            let problem = format!("is \"{}\"; supported are greedy, group_limited_greedy", shown(other));
            return Err(c.uncomputed("topk_method", &problem));
        }
    }
    Ok(scoring)
}
