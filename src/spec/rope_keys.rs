//! Keys inside the objects of rotary embeddings that are known and may be without effect.

/// Keys of `rope_parameters` that transformers reads for some kind of scaling, and ignores with a
/// warning for the others (modeling_rope_utils.RotaryEmbeddingConfigMixin._check_received_keys).
pub(super) const ROPE_KEYS: &[&str] = &[
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "short_factor",
    "long_factor",
    "low_freq_factor",
    "high_freq_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "mrope_section",
];

/// Keys that other programs write there and that transformers ignores with a warning: vLLM
/// (`attn_factor`, `extrapolation_factor`), YaRN's authors (`finetuned`), and the Hunyuan and
/// Qwen-VL families (`alpha`, `mrope_interleaved`).
pub(super) const FOREIGN_ROPE_KEYS: &[&str] =
    &["attn_factor", "extrapolation_factor", "finetuned", "alpha", "mrope_interleaved"];
