//! Multi-head latent attention in the `config.json` of DeepSeek and similar models. DeepSeek-AI
//! 2024, "DeepSeek-V2"; facts: transformers `modeling_deepseek_v3`.
//!
//! A head of q and k has a part without positions and a rotary part, and all heads share the rotary
//! part of k. The norms between the low-rank projections have a fixed epsilon.

use super::decoder::{Decoder, Heads};
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::{Rope, Scaling, yarn_mscale};
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Attention, Latent, LatentQuery, Linear, Norm, Qkv};
use crate::vocabulary::{NormKind, Pairs};

/// The epsilon of the norms between the low-rank projections.
const INNER_EPS: f64 = 1e-6;

/// Sizes of the heads, and the factor of the scores.
pub(super) struct LatentHeads {
    heads: usize,
    /// Sizes of the parts of a head: without positions, and with the rotary embedding.
    nope: usize,
    turning: usize,
    value: usize,
    query_rank: Option<usize>,
    rank: usize,
    bias: bool,
    scale: f64,
}

/// The pairs of the rotary embedding, by `rope_interleave`: usually adjacent dimensions.
pub(super) fn pairs(c: &Config) -> Result<Pairs> {
    Ok(if c.nullable_bool_or("rope_interleave", true)? { Pairs::Adjacent } else { Pairs::Halves })
}

impl LatentHeads {
    /// Also returns the decoder's heads and the rope of the rotary part.
    pub(super) fn from_config(c: &Config, defaults: &RopeDefaults) -> Result<(Self, (Heads, Rope))> {
        let heads = c.size("num_attention_heads")?;
        c.only("num_key_value_heads", heads.into())?;
        let (nope, turning) = (c.size("qk_nope_head_dim")?, c.size("qk_rope_head_dim")?);
        c.only("qk_head_dim", (nope + turning).into())?;
        // transformers overwrites it.
        c.without_effect(&["head_dim"]);
        // If the config may set the rotary share, it is a share of the whole head.
        let whole = if defaults.partial_rotary_factor.is_some() { nope + turning } else { turning };
        let rope = Rope::from_config(c, whole, defaults)?;
        if rope.dim != turning {
            let problem = format!("turns {} dimensions of a head, but `qk_rope_head_dim` is {turning}", rope.dim);
            return Err(c.wrong("partial_rotary_factor", &problem));
        }
        if c.missing("q_lora_rank") {
            c.size("q_lora_rank")?;
        }
        let own = Self {
            heads,
            nope,
            turning,
            value: c.size("v_head_dim")?,
            query_rank: c.opt_usize("q_lora_rank")?,
            rank: c.size("kv_lora_rank")?,
            bias: c.bool_or("attention_bias", false)?,
            scale: ((nope + turning) as f64).powf(-0.5) * temperature(c, &rope, defaults)?.powi(2),
        };
        Ok((own, (Heads { heads, kv_heads: heads, head_dim: turning }, rope)))
    }

    /// The attention with names in `self_attn.`. Biases, if there are any, belong to the
    /// projections from and to the residual stream.
    pub(super) fn attention(&self, decoder: &Decoder, i: usize) -> Attention {
        let Self { heads, nope, turning, value, rank, bias, .. } = *self;
        let (hidden, head_dim) = (decoder.hidden, nope + turning);
        let name = |part: &str| format!("{}self_attn.{part}", decoder.layer(i));
        let norm = |part: &str, size| Norm::new(NormKind::Rms, &name(part), size, INNER_EPS);
        let query = match self.query_rank {
            None => LatentQuery::Direct(Linear::new(&name("q_proj"), heads * head_dim, hidden, false)),
            Some(rank) => LatentQuery::Low {
                down: Linear::new(&name("q_a_proj"), rank, hidden, bias),
                norm: norm("q_a_layernorm", rank),
                up: Linear::new(&name("q_b_proj"), heads * head_dim, rank, false),
            },
        };
        let latent = Latent {
            query,
            kv_down: Linear::new(&name("kv_a_proj_with_mqa"), rank + turning, hidden, bias),
            kv_norm: norm("kv_a_layernorm", rank),
            kv_up: Linear::new(&name("kv_b_proj"), heads * (nope + value), rank, false),
            nope_dim: nope,
        };
        let out = Linear::new(&name("o_proj"), hidden, heads * value, bias);
        let mut attention = Attention::new((heads, heads, head_dim), Qkv::Latent(Box::new(latent)), out);
        attention.value_dim = value;
        attention.rope = Some(decoder.rope.clone());
        attention.scale = self.scale;
        attention
    }
}

/// YaRN's attention temperature by `mscale_all_dim`, which scores contain twice.
fn temperature(c: &Config, rope: &Rope, defaults: &RopeDefaults) -> Result<f64> {
    let all = rope_config::opt_parameter(c, defaults, "mscale_all_dim")?.unwrap_or(0.0);
    Ok(match rope.scaling {
        Scaling::None | Scaling::LongRope { .. } | Scaling::Proportional { .. } => 1.0,
        Scaling::Linear { factor } | Scaling::Dynamic { factor, .. } => yarn_mscale(factor, all),
        Scaling::Llama3 { factor, .. } | Scaling::Yarn { factor, .. } => yarn_mscale(factor, all),
    })
}
