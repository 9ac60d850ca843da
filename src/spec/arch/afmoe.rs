//! Trinity (`model_type` "afmoe"). Facts: transformers `modeling_afmoe`; Arcee AI 2025.
//!
//! Norms precede and follow attention and feed-forward network. A gate with a projection of its own
//! multiplies the output of attention. Only layers with a sliding window have positions. Experts
//! are chosen by sigmoid scores plus a bias. Shared experts are added.

use super::decoder::{Decoder, Defaults, LLAMA, layer_windows, sliding_window};
use super::experts::{self, SUM_EPS, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Divisor, Ffn, Gate, Linear, Mixer, Mlp, Model, Score, Scoring, TensorSpec};
use crate::vocabulary::{NormKind, Span};

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, head_dim: Some(128), ..LLAMA };
// The defaults of transformers.
const SLIDING_WINDOW: usize = 1024;
const FULL_EVERY: usize = 4;
const SHARED_EXPERTS: usize = 2;
/// The norms of a layer, in the order of computation.
const NORMS: [&str; 4] = ["input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"];

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &DEFAULTS)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("attention_bias", false)?);
    let window = sliding_window(c)?.or(Some(SLIDING_WINDOW).filter(|_| c.missing("sliding_window")));
    let every = c.opt_usize("global_attn_every_n_layers")?.unwrap_or(FULL_EVERY);
    if every == 0 {
        return Err(c.wrong("global_attn_every_n_layers", "is 0"));
    }
    let windows = layer_windows(c, decoder.layers, window, |i| (i + 1) % every != 0)?;
    c.only("score_func", "sigmoid".into())?;
    for key in ["num_expert_groups", "num_limited_groups", "n_group", "topk_group"] {
        c.only(key, 1.into())?;
    }
    // This key is for training.
    c.without_effect(&["load_balance_coeff"]);
    let sizes =
        Sizes::from_config(c, decoder.layers, &["num_experts", "num_local_experts"], &["moe_intermediate_size"])?;
    experts::summed_anyway(c, "route_norm", true)?;
    let mut scoring = Scoring::new(Score::Sigmoid, Divisor::Sum(SUM_EPS));
    scoring.factor = c.opt_f64("route_scale")?.unwrap_or(1.0) as f32;
    let shared = c.opt_usize("num_shared_experts")?.unwrap_or(SHARED_EXPERTS) * sizes.intermediate;
    let (dense, dense_layers) = (c.size("intermediate_size")?, c.opt_usize("num_dense_layers")?.unwrap_or(1));
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.qk_norm = Some(decoder.qk_norm(i, true));
        attention.span = windows[i];
        attention.rope = attention.rope.filter(|_| windows[i] != Span::All);
        let gate = format!("{}self_attn.gate_proj", decoder.layer(i));
        attention.gate = Some(Gate::Own(Linear::new(&gate, attention.heads * attention.head_dim, hidden, false)));
        let prefix = format!("{}mlp.", decoder.layer(i));
        let ffn = if i < dense_layers {
            Ffn::Dense(Box::new(Mlp::gated(&prefix, hidden, dense, sizes.activation, false)))
        } else {
            let mut moe = experts::separate(&prefix, hidden, sizes, scoring.clone());
            moe.router.linear = Linear::new(&format!("{prefix}router.gate"), sizes.num_experts, hidden, false);
            moe.router.correction_bias = Some(TensorSpec::new(format!("{prefix}expert_bias"), [sizes.num_experts]));
            moe.shared = experts::shared(&format!("{prefix}shared_experts."), hidden, shared, sizes.activation);
            Ffn::Moe(Box::new(moe))
        };
        decoder.sandwich_block(i, NORMS, Mixer::Attention(Box::new(attention)), ffn)
    });
    let mut model = decoder.model("afmoe", layers.collect());
    if c.bool_or("mup_enabled", false)? {
        model.embedding_factor = (hidden as f64).sqrt();
    }
    Ok(model)
}
