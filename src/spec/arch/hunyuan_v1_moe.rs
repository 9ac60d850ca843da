//! Hunyuan-A13B (`model_type` "hunyuan_v1_moe"). Facts: transformers `modeling_hunyuan_v1_moe`;
//! Tencent 2025.
//!
//! Norms of queries and keys follow the rotary embedding, whose base `alpha` stretches for all
//! lengths. Every layer is a mixture. Softmax weights are divided by their sum, and a shared expert
//! is added. Counts may be lists with one number for each layer.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::{Config, MAX_EXPERTS};
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, HeadNorm, Linear, Mixer, Model, Norm, QkNorm, Scoring};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { alpha: true, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, rope: ROPE, ..LLAMA };

/// Keys of Tencent's own code for other models of the family, for images, or for training.
#[rustfmt::skip]
const UNREAD: &[&str] = &[
    "add_classification_head", "anyres_pooling_size", "anyres_vit_max_image_size", "anyres_vit_two_views", "attention_head_dim",
    "cla_share_factor", "class_num", "dense_list", "eod_token_id", "group_limited_greedy", "im_end_id", "im_newline_id", "im_start_id",
    "image_token_id", "kv_lora_rank", "mask_init_id", "max_image_size", "moe_drop_tokens", "moe_intermediate_size",
    "moe_random_routing_dropped_token", "n_group", "norm_topk_prob", "num_media_embeds", "org_vocab_size", "pad_id", "pool_type", "q_lora_rank",
    "qk_nope_head_dim", "qk_rope_head_dim", "routed_scaling_factor", "skip_cls_token", "sep_id", "text_end_id", "text_start_id",
    "topk_group", "use_mixed_mlp_moe", "v_head_dim", "video_end_id", "video_start_id", "vit_path",
];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("attention_bias", false)?);
    c.without_effect(UNREAD);
    for (key, value) in [
        ("use_cla", false),
        ("use_mla", false),
        ("mlp_bias", false),
        ("use_qk_norm", true),
        ("use_rotary_pos_emb", true),
    ] {
        c.only(key, value.into())?;
    }
    c.only("position_embedding_xdrope", false.into())?;
    c.only("moe_layer_num_skipped", 0.into())?;
    c.only("norm_type", "rms".into())?;
    let act = activation(c, "hidden_act", "silu")?;
    let intermediate = c.size("intermediate_size")?;
    let counts = per_layer(c, "num_experts", 1, decoder.layers)?;
    let top_ks = per_layer(c, "moe_topk", 1, decoder.layers)?;
    // The modeling file makes one shared expert of the ordinary width, whatever the config counts.
    c.without_effect(&["num_shared_expert"]);
    let mut layers = Vec::with_capacity(decoder.layers);
    for i in 0..decoder.layers {
        let sizes = Sizes { num_experts: counts[i], top_k: top_ks[i], intermediate, activation: act };
        if sizes.top_k == 0 || sizes.top_k > sizes.num_experts {
            return Err(c.wrong("moe_topk", &format!("is {} of {} experts", sizes.top_k, sizes.num_experts)));
        }
        let mut attention = decoder.attention(i, bias);
        let norm = |part: &str| {
            let name = format!("{}self_attn.{part}", decoder.layer(i));
            HeadNorm::Each(Norm::new(NormKind::Rms, &name, decoder.heads.head_dim, decoder.eps))
        };
        attention.qk_norm =
            Some(QkNorm { q: norm("query_layernorm"), k: Some(norm("key_layernorm")), after_rope: true });
        let prefix = format!("{}mlp.", decoder.layer(i));
        let mut moe = experts::separate(&prefix, hidden, sizes, Scoring::softmax(true));
        moe.router.linear = Linear::new(&format!("{prefix}gate.wg"), sizes.num_experts, hidden, false);
        moe.shared = experts::shared(&format!("{prefix}shared_mlp."), hidden, intermediate, act);
        layers.push(decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe))));
    }
    Ok(decoder.model("hunyuan_v1_moe", layers))
}

/// The count of each layer, from one number for all or from a list.
fn per_layer(c: &Config, key: &str, usual: usize, layers: usize) -> Result<Vec<usize>> {
    let counts = match c.get(key).is_some_and(|value| value.is_array()) {
        true => c.opt_list_usize(key)?.unwrap_or_default(),
        false => vec![c.opt_usize(key)?.unwrap_or(usual); layers],
    };
    if counts.len() < layers {
        return Err(c.wrong(key, &format!("has {} entries for {layers} layers", counts.len())));
    }
    if let Some(count) = counts.iter().find(|count| count.saturating_mul(layers) > MAX_EXPERTS) {
        return Err(c.wrong(key, &format!("is {count}, more than any model has in {layers} layers")));
    }
    Ok(counts)
}
