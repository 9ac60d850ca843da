//! Gemma 4 (`model_type` "gemma4_text", inside "gemma4"). Facts: transformers `modeling_gemma4`;
//! Google 2026.
//!
//! Norms precede and follow attention and feed-forward network, and a factor multiplies the stream
//! after each layer. Layers with a window and layers without have heads of different sizes. The
//! keys of the latter may also be their values, and only some of their pairs of dimensions are
//! rotated. The small sizes (E2B, E4B) have embeddings for each layer, and their last layers use
//! the keys and values of earlier ones. In the mixture (26B-A4B), the dense network and the experts
//! have a norm of their own before and after them; the norm of the sublayer follows their sum.

use super::activation::activation;
use super::decoder::{GEMMA_NORMS, full_attention, span};
use super::experts::{self, Sizes};
use super::gemma4_kinds::{Kind, kinds};
use super::names::Names;
use super::per_layer::{PerLayer, lenders};
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{
    Attention, Ffn, HeadNorm, Layer, Linear, Mixer, Mlp, Model, Moe, Norm, QkNorm, Qkv, Scoring, SharedExpert,
    TensorSpec,
};
use crate::vocabulary::{Activation, NormKind};

/// Every layer with this number has no window, and neither has the last.
const PATTERN: usize = 6;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    c.only("attention_bias", false.into())?;
    c.without_effect(&["max_position_embeddings"]);
    // Tokens of images attend to each other, but a text has none.
    c.only("use_bidirectional_attention", "vision".into())?;
    let (vocab, hidden, heads) = (c.size("vocab_size")?, c.size("hidden_size")?, c.size("num_attention_heads")?);
    let intermediate = c.size("intermediate_size")?;
    let eps = c.opt_f64("rms_norm_eps")?.unwrap_or(1e-6);
    let act = activation(c, "hidden_activation", "gelu_pytorch_tanh")?;
    let count = c.layers(&["num_hidden_layers"])?;
    let mut full = full_attention(c, count, "sliding_attention", |i| (i + 1) % PATTERN == 0 || i + 1 == count)?;
    if let Some(last) = full.last_mut().filter(|full| !**full) {
        *last = true;
        c.tell(
            "layer_types",
            "gives the last layer a window, which has no effect: as in transformers, it sees everything",
        );
    }
    let kinds = kinds(c, heads, &full)?;
    let lenders = lenders(c, &full)?;
    let wide = c.bool_or("use_double_wide_mlp", false)?;
    let experts = experts(c, act, count)?;
    let own = PerLayer::from_config(c, vocab, hidden, eps)?;
    let norm = |name: &str, size| Norm::new(NormKind::RmsRoundedOnce, name, size, eps);
    let layer = |i: usize| {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let Kind { head_dim, kv_heads, key_is_value, window, rope } = &kinds[usize::from(full[i])];
        let linear = |part: &str, out, input| Linear::new(&name(part), out, input, false);
        let q = linear("self_attn.q_proj", heads * head_dim, hidden);
        let kv = |part: &str| linear(part, kv_heads * head_dim, hidden);
        let qkv = match (lenders[i], key_is_value) {
            (Some(from), _) => Qkv::Borrowed { q, from },
            (None, true) => Qkv::KeyIsValue { q, k: kv("self_attn.k_proj") },
            (None, false) => Qkv::Separate { q, k: kv("self_attn.k_proj"), v: kv("self_attn.v_proj") },
        };
        let out = linear("self_attn.o_proj", hidden, heads * head_dim);
        let mut attention = Attention::new((heads, *kv_heads, *head_dim), qkv, out);
        let of_heads = |part: &str| HeadNorm::Each(norm(&name(part), *head_dim));
        let k = lenders[i].is_none().then(|| of_heads("self_attn.k_norm"));
        attention.qk_norm = Some(QkNorm { q: of_heads("self_attn.q_norm"), k, after_rope: false });
        attention.value_norm = Some(eps);
        attention.rope = Some(rope.clone());
        attention.span = span(*window);
        attention.scale = 1.0;
        let inner = if wide && lenders[i].is_some() { 2 * intermediate } else { intermediate };
        let mlp = Mlp::gated(&name("mlp."), hidden, inner, act, false);
        let norms = GEMMA_NORMS.map(|part| norm(&name(part), hidden));
        let ffn = match experts {
            Some(sizes) => Ffn::Moe(Box::new(mixture(mlp, sizes, hidden, &|part| norm(&name(part), hidden), &name))),
            None => Ffn::Dense(Box::new(mlp)),
        };
        let mut layer = Layer::of_four_norms(norms, Mixer::Attention(Box::new(attention)), ffn);
        layer.embedding_gate = own.map(|own| own.gate(i, act));
        layer.scalar = Some(TensorSpec::new(name("layer_scalar"), [1]));
        layer
    };
    let tied = c.bool_or("tie_word_embeddings", true)?;
    let ends = names.ends(tied, TensorSpec::new("model.embed_tokens.weight", [vocab, hidden]));
    let layers = (0..count).map(layer).collect();
    let mut model = Model::new("gemma4_text", hidden, ends, layers, norm("model.norm", hidden));
    model.embedding_factor = (hidden as f64).sqrt();
    model.logit_softcap = c.opt_f64("final_logit_softcapping")?;
    model.layer_embeddings = own.map(|own| own.embeddings(count));
    Ok(model)
}

/// Sizes of the experts, where a config has them.
fn experts(c: &Config, activation: Activation, layers: usize) -> Result<Option<Sizes>> {
    if !c.bool_or("enable_moe_block", false)? {
        c.without_effect(&["moe_intermediate_size", "num_experts", "top_k_experts"]);
        return Ok(None);
    }
    let (top_k, intermediate) = (c.size("top_k_experts")?, c.size("moe_intermediate_size")?);
    let num_experts = c.experts(&["num_experts"], top_k, layers)?;
    Ok(Some(Sizes { num_experts, top_k, intermediate, activation }))
}

/// Experts beside the dense network `mlp`. `name` and `norm` make what the layer has under a name.
fn mixture(mlp: Mlp, sizes: Sizes, hidden: usize, norm: &dyn Fn(&str) -> Norm, name: &dyn Fn(&str) -> String) -> Moe {
    let mut moe = experts::separate(&name("router."), hidden, sizes, Scoring::softmax(true));
    let router = &mut moe.router;
    router.linear = Linear::new(&name("router.proj"), sizes.num_experts, hidden, false);
    let mut scale = norm("router");
    scale.weight = TensorSpec::new(name("router.scale"), [hidden]);
    (router.norm, router.logit_factor) = (Some(scale), (hidden as f64).powf(-0.5));
    router.expert_factors = Some(TensorSpec::new(name("router.per_expert_scale"), [sizes.num_experts]));
    let [gate_up, down] = ["gate_up_proj", "down_proj"].map(|part| name(&format!("experts.{part}")));
    moe.experts = experts::stacked(&gate_up, &down, hidden, sizes);
    moe.expert_norm = Some(norm("pre_feedforward_layernorm_2"));
    moe.sum_norm = Some(norm("post_feedforward_layernorm_2"));
    let write_norm = Some(norm("post_feedforward_layernorm_1"));
    moe.shared = Some(SharedExpert { write_norm, ..SharedExpert::plain(mlp) });
    moe
}
