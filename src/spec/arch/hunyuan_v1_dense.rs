//! Hunyuan 0.5B to 7B (`model_type` "hunyuan_v1_dense"). Facts: transformers
//! `modeling_hunyuan_v1_dense`; Tencent 2025.
//!
//! Llama with norms of queries and keys after the rotary embedding, whose base `alpha` stretches.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, HeadNorm, Mixer, Mlp, Model, Norm, QkNorm};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { alpha: true, ..rope_config::DEFAULTS };
const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, rope: ROPE, ..LLAMA };

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let bias = c.bool_or("attention_bias", false)?;
    // The modeling file computes the same whatever these keys say.
    c.only("mlp_bias", false.into())?;
    c.only("use_cla", false.into())?;
    c.only("use_qk_norm", true.into())?;
    c.only("use_rotary_pos_emb", true.into())?;
    c.only("norm_type", "rms".into())?;
    c.only("num_experts", 1.into())?;
    c.only("use_mla", false.into())?;
    c.only("add_classification_head", false.into())?;
    // These are ids of tokens, repeated sizes, and settings of models for images and
    // classification.
    c.without_effect(&["attention_head_dim", "cla_share_factor", "org_vocab_size", "pad_id", "eod_token_id"]);
    c.without_effect(&["im_start_id", "im_end_id", "im_newline_id", "image_token_id", "text_start_id", "text_end_id"]);
    c.without_effect(&[
        "mask_init_id",
        "class_num",
        "dense_list",
        "pool_type",
        "enable_lm_head_fp32",
        "num_media_embeds",
        "moe_topk",
        "skip_cls_token",
    ]);
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        let norm = |part: &str| {
            let name = format!("{}self_attn.{part}", decoder.layer(i));
            HeadNorm::Each(Norm::new(NormKind::Rms, &name, decoder.heads.head_dim, decoder.eps))
        };
        let (q, k) = (norm("query_layernorm"), norm("key_layernorm"));
        attention.qk_norm = Some(QkNorm { q, k: Some(k), after_rope: true });
        let mlp = Mlp::gated(&format!("{}mlp.", decoder.layer(i)), decoder.hidden, intermediate, act, false);
        decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)))
    });
    Ok(decoder.model("hunyuan_v1_dense", layers.collect()))
}
