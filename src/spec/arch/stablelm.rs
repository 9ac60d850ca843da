//! StableLM 3B and 2 (`model_type` "stablelm"). Facts: transformers `modeling_stablelm`; Bellagente
//! et al. 2024.
//!
//! Llama with LayerNorms and partial rotary embeddings. The 12B has attention and MLP in parallel
//! on one norm, and norms of queries and keys with a tensor for each head.

use super::activation::activation;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{Ffn, HeadNorm, Layer, Linear, Mixer, Mlp, Model, Norm, QkNorm};
use crate::vocabulary::NormKind;

const ROPE: RopeDefaults = RopeDefaults { partial_rotary_factor: Some(0.25), ..rope_config::DEFAULTS };
const DEFAULTS: Defaults =
    Defaults { eps_key: "layer_norm_eps", rms_norm_eps: 1e-5, num_key_value_heads: Some(32), rope: ROPE, ..LLAMA };

/// The largest number of query norms in all layers. The 12B has 1,280.
const MAX_NORMS: usize = 1 << 17;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    // The rotary embedding would have this size, but the projections would not.
    c.only("head_dim", (c.size("hidden_size")? / c.size("num_attention_heads")?).into())?;
    let decoder = Decoder::from_config(c, names, NormKind::Layer, &DEFAULTS)?;
    let intermediate = c.size("intermediate_size")?;
    let act = activation(c, "hidden_act", "silu")?;
    let bias = c.bool_or("use_qkv_bias", false)?;
    let (with_norms, parallel) = (c.bool_or("qk_layernorm", false)?, c.bool_or("use_parallel_residual", false)?);
    let heads = decoder.heads;
    if with_norms && heads.heads.saturating_mul(decoder.layers) > MAX_NORMS {
        return Err(c.wrong("num_attention_heads", "makes more norms of heads than any model has"));
    }
    let layers = (0..decoder.layers).map(|i| {
        let name = |part: &str| format!("{}{part}", decoder.layer(i));
        let mut attention = decoder.attention(i, bias);
        attention.out = Linear::new(&name("self_attn.o_proj"), decoder.hidden, heads.heads * heads.head_dim, false);
        let own = |part: &str, count: usize| {
            let name = |head: usize| name(&format!("self_attn.{part}.norms.{head}"));
            let norm = |head| Norm::new(NormKind::Layer, &name(head), heads.head_dim, decoder.eps).without_bias();
            HeadNorm::Own((0..count).map(norm).collect())
        };
        attention.qk_norm = with_norms.then(|| QkNorm {
            q: own("q_layernorm", heads.heads),
            k: Some(own("k_layernorm", heads.kv_heads)),
            after_rope: false,
        });
        let mlp = Mlp::gated(&name("mlp."), decoder.hidden, intermediate, act, false);
        let (mixer, ffn) = (Mixer::Attention(Box::new(attention)), Ffn::Dense(Box::new(mlp)));
        if parallel {
            let norm = Norm::new(NormKind::Layer, &name("input_layernorm"), decoder.hidden, decoder.eps);
            Layer::of_one_norm(norm, mixer, ffn)
        } else {
            decoder.block(i, mixer, ffn)
        }
    });
    Ok(decoder.model("stablelm", layers.collect()))
}
