//! OLMoE (`model_type` "olmoe"). Facts: transformers `modeling_olmoe`; Muennighoff et al. 2024.
//!
//! Query and key norms run over the whole projection, and the chosen experts' weights are not renormalised by default.

use super::decoder::{Decoder, Heads};
use super::experts;
use super::{Names, activation};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::rope::Rope;
use crate::model::spec::{Ffn, Mixer, Model, NormKind, Scoring};

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, false)?;
    let heads = Heads::from_config(c)?;
    let rope = Rope::from_config(c, heads.head_dim, 10_000.0)?;
    let bias = c.bool_or("attention_bias", false)?;
    let clip = c.opt_f64("clip_qkv")?;
    let sizes = experts::Sizes {
        num_experts: c.size("num_experts")?,
        top_k: c.size("num_experts_per_tok")?,
        intermediate: c.size("intermediate_size")?,
        activation: activation(c, "hidden_act", "silu")?,
    };
    let scoring = Scoring::Softmax { renormalise: c.bool_or("norm_topk_prob", false)? };
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, heads, bias, Some(rope.clone()));
        attention.qk_norm = Some(decoder.qk_norm(i, heads, false));
        attention.clip = clip;
        let prefix = format!("{}mlp.", decoder.layer(i));
        let moe = experts::separate(c, &prefix, decoder.hidden, sizes, scoring.clone())?;
        Ok(decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe))))
    });
    Ok(decoder.model("olmoe", layers.collect::<Result<_>>()?))
}
