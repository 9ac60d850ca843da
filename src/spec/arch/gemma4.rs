//! Gemma 4 (`model_type` "gemma4_text", inside "gemma4"). Facts: transformers `modeling_gemma4`; Google 2026.
//!
//! Norms before and behind attention and feed-forward network, and a factor on the stream behind each layer. Layers with a
//! window have heads of another size than those without, whose keys may be their values; a part of their pairs turns. Sizes
//! with embeddings of their own for each layer or with shared keys (E2B, E4B) and the mixture (26B-A4B) are refused.

use super::activation::activation;
use super::decoder::{full_attention, sliding_window, span};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::rope::{Rope, Scaling};
use crate::spec::{
    Attention, Ffn, HeadNorm, Layer, Linear, Mixer, Mlp, Model, Norm, QkNorm, Qkv, Sublayer, TensorSpec,
};
use crate::vocabulary::{NormKind, Pairs};

const SLIDING_WINDOW: usize = 512;
const GLOBAL_HEAD_DIM: usize = 512;
/// Every so many layers one has no window, and the last has none.
const PATTERN: usize = 6;

/// What the layers of one kind have of their own.
struct Kind {
    head_dim: usize,
    kv_heads: usize,
    key_is_value: bool,
    window: Option<usize>,
    rope: Rope,
}

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    for key in ["hidden_size_per_layer_input", "num_kv_shared_layers"] {
        c.only(key, 0.into())?;
    }
    for key in ["enable_moe_block", "attention_bias"] {
        c.only(key, false.into())?;
    }
    c.without_effect(&[
        "max_position_embeddings",
        "moe_intermediate_size",
        "num_experts",
        "top_k_experts",
        "use_bidirectional_attention",
        "use_double_wide_mlp",
        "vocab_size_per_layer_input",
    ]);
    let (vocab, hidden, heads) = (c.size("vocab_size")?, c.size("hidden_size")?, c.size("num_attention_heads")?);
    let intermediate = c.size("intermediate_size")?;
    let eps = c.opt_f64("rms_norm_eps")?.unwrap_or(1e-6);
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    let count = c.layers(&["num_hidden_layers"])?;
    let full = full_attention(c, count, "sliding_attention", |i| (i + 1) % PATTERN == 0 || i + 1 == count)?;
    let kinds = kinds(c, heads)?;
    let layer = |i: usize| {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let norm = |part: &str, size| Norm::new(NormKind::RmsRoundedOnce, &name(part), size, eps);
        let Kind { head_dim, kv_heads, key_is_value, window, rope } = &kinds[usize::from(full[i])];
        let linear = |part: &str, out, input| Linear::new(&name(&format!("self_attn.{part}")), out, input, false);
        let (q, k) = (linear("q_proj", heads * head_dim, hidden), linear("k_proj", kv_heads * head_dim, hidden));
        let qkv = match key_is_value {
            true => Qkv::KeyIsValue { q, k },
            false => Qkv::Separate { q, k, v: linear("v_proj", kv_heads * head_dim, hidden) },
        };
        let out = linear("o_proj", hidden, heads * head_dim);
        let mut attention = Attention::new((heads, *kv_heads, *head_dim), qkv, out);
        let of_heads = |part: &str| HeadNorm::Each(norm(part, *head_dim));
        let (q, k) = (of_heads("self_attn.q_norm"), of_heads("self_attn.k_norm"));
        attention.qk_norm = Some(QkNorm { q, k, after_rope: false });
        attention.value_norm = Some(eps);
        attention.rope = Some(rope.clone());
        attention.span = span(*window);
        attention.scale = 1.0;
        let mlp = Mlp::gated(&name("mlp."), hidden, intermediate, act, false);
        let mut mixer = Sublayer::new(norm("input_layernorm", hidden), Mixer::Attention(Box::new(attention)));
        mixer.write_norm = Some(norm("post_attention_layernorm", hidden));
        let mut ffn = Sublayer::new(norm("pre_feedforward_layernorm", hidden), Ffn::Dense(Box::new(mlp)));
        ffn.write_norm = Some(norm("post_feedforward_layernorm", hidden));
        let scalar = Some(TensorSpec::new(name("layer_scalar"), [1]));
        Layer { mixer: Some(mixer), ffn: Some(ffn), parallel: false, scalar }
    };
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let ends = names.ends(tied, TensorSpec::new("model.embed_tokens.weight", [vocab, hidden]));
    let final_norm = Norm::new(NormKind::RmsRoundedOnce, "model.norm", hidden, eps);
    let mut model = Model::new("gemma4_text", hidden, ends, (0..count).map(layer).collect(), final_norm);
    model.embedding_factor = (hidden as f64).sqrt();
    model.logit_softcap = c.opt_f64("final_logit_softcapping")?;
    Ok(model)
}

/// Layers with a window, and layers without.
fn kinds(c: &Config, heads: usize) -> Result<[Kind; 2]> {
    let head_dim = c.opt_usize("head_dim")?.unwrap_or(256);
    let kv_heads = c.size("num_key_value_heads")?;
    let key_is_value = c.bool_or("attention_k_eq_v", false)?;
    let global_dim = c.opt_usize("global_head_dim")?.unwrap_or(GLOBAL_HEAD_DIM);
    let global_heads = c.opt_usize("num_global_key_value_heads")?.filter(|_| key_is_value).unwrap_or(kv_heads);
    let window = sliding_window(c)?.or(Some(SLIDING_WINDOW));
    for (key, count) in [("num_key_value_heads", kv_heads), ("num_global_key_value_heads", global_heads)] {
        if count == 0 || !heads.is_multiple_of(count) {
            return Err(c.wrong(key, &format!("is {count}, which does not divide {heads} heads")));
        }
    }
    for (key, dim) in [("head_dim", head_dim), ("global_head_dim", global_dim)] {
        if dim == 0 || dim % 2 != 0 {
            return Err(c.wrong(key, &format!("is {dim}, not an even number")));
        }
    }
    let (mut sliding, mut full) = ((10_000.0, 1.0), (1_000_000.0, 0.25));
    if let Some(ropes) = c.section("rope_parameters")? {
        for (key, kind, of) in
            [("sliding_attention", "default", &mut sliding), ("full_attention", "proportional", &mut full)]
        {
            let Some(rope) = ropes.section(key)? else { continue };
            rope.only("rope_type", kind.into())?;
            *of = (rope.opt_f64("rope_theta")?.unwrap_or(of.0), rope.opt_f64("partial_rotary_factor")?.unwrap_or(of.1));
            rope.finish_section()?;
        }
        ropes.finish_section()?;
    }
    let rope = |theta, dim, scaling| Rope { theta, dim, pairs: Pairs::Halves, scaling };
    let turning = (full.1 * global_dim as f64 / 2.0) as usize;
    Ok([
        Kind { head_dim, kv_heads, key_is_value: false, window, rope: rope(sliding.0, head_dim, Scaling::None) },
        Kind {
            head_dim: global_dim,
            kv_heads: global_heads,
            key_is_value,
            window: None,
            rope: rope(full.0, global_dim, Scaling::Proportional { turning }),
        },
    ])
}
