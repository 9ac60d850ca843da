//! Sizes that a config inside that of a larger model may leave out, with the defaults of its class.
//!
//! transformers writes only what differs from the defaults into a config inside another one, so
//! that sizes of released models are missing there (Gemma 3 4B says six keys).

/// By `model_type` of the language model.
const SIZES: &[(&str, &[(&str, usize)])] = &[
    ("deepseek_v3", LATENT_671B),
    ("gemma3_text", &[("hidden_size", 2304), ("intermediate_size", 9216), ("num_hidden_layers", 26)]),
    (
        "gemma4_text",
        &[
            ("vocab_size", 262_144),
            ("hidden_size", 2304),
            ("intermediate_size", 9216),
            ("num_hidden_layers", 30),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
        ],
    ),
    ("kimi_k2", LATENT_671B),
    (
        "llama4_text",
        &[
            ("vocab_size", 202_048),
            ("hidden_size", 5120),
            ("intermediate_size", 8192),
            ("intermediate_size_mlp", 16_384),
            ("num_hidden_layers", 48),
            ("num_attention_heads", 40),
            ("num_experts_per_tok", 1),
            ("num_local_experts", 16),
        ],
    ),
    ("ministral3", &[("vocab_size", 131_072), MISTRAL[0], MISTRAL[1], ("num_hidden_layers", 34), MISTRAL[2]]),
    ("mistral", &[("vocab_size", 32_000), MISTRAL[0], MISTRAL[1], ("num_hidden_layers", 32), MISTRAL[2]]),
    (
        "mistral4",
        &[
            ("vocab_size", 131_072),
            ("hidden_size", 4096),
            ("intermediate_size", 12_288),
            ("moe_intermediate_size", 2048),
            ("num_hidden_layers", 36),
            ("num_attention_heads", 32),
            ("n_routed_experts", 128),
            ("num_experts_per_tok", 4),
            ("kv_lora_rank", 256),
            ("q_lora_rank", 1024),
            ("qk_rope_head_dim", 64),
            ("qk_nope_head_dim", 64),
            ("v_head_dim", 128),
        ],
    ),
    (
        "qwen3_5_moe_text",
        &[
            ("vocab_size", 248_320),
            ("hidden_size", 2048),
            ("num_hidden_layers", 40),
            ("num_attention_heads", 16),
            ("moe_intermediate_size", 512),
            ("shared_expert_intermediate_size", 512),
            ("num_experts_per_tok", 8),
            ("num_experts", 256),
            DELTANET[0],
            DELTANET[1],
            DELTANET[2],
            DELTANET[3],
        ],
    ),
    (
        "qwen3_5_text",
        &[
            ("vocab_size", 248_320),
            ("hidden_size", 4096),
            ("intermediate_size", 12_288),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 16),
            DELTANET[0],
            DELTANET[1],
            DELTANET[2],
            DELTANET[3],
        ],
    ),
];

const MISTRAL: [(&str, usize); 3] = [("hidden_size", 4096), ("intermediate_size", 14_336), ("num_attention_heads", 32)];
const DELTANET: [(&str, usize); 4] = [
    ("linear_key_head_dim", 128),
    ("linear_value_head_dim", 128),
    ("linear_num_key_heads", 16),
    ("linear_num_value_heads", 32),
];
/// DeepSeek-V3, whose class is that of Kimi K2.
const LATENT_671B: &[(&str, usize)] = &[
    ("vocab_size", 129_280),
    ("hidden_size", 7168),
    ("intermediate_size", 18_432),
    ("moe_intermediate_size", 2048),
    ("num_hidden_layers", 61),
    ("num_attention_heads", 128),
    ("n_routed_experts", 256),
    ("num_experts_per_tok", 8),
    ("kv_lora_rank", 512),
    ("q_lora_rank", 1536),
    ("qk_rope_head_dim", 64),
    ("qk_nope_head_dim", 128),
    ("v_head_dim", 128),
];

/// The sizes of a class, for a config inside another one.
pub(super) fn sizes(model_type: &str) -> &'static [(&'static str, usize)] {
    SIZES.iter().find(|(name, _)| *name == model_type).map_or(&[], |(_, sizes)| sizes)
}
