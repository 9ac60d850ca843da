//! What a `config.json` alone announces, against the totals that are published of the checkpoints.
//!
//! Of each checkpoint the test has what is published, and the arithmetic of the parts that are not
//! read: layers for multi-token prediction, towers that see, buffers. Configs are re-typed without
//! what does not matter.

use super::released::totals;
use super::*;

/// A published checkpoint, and what the program reads of it.
struct Checkpoint {
    name: &'static str,
    config: &'static str,
    /// Parameters in all, and where that number is published.
    published: u64,
    source: &'static str,
    /// Parameters that are not read.
    unread: u64,
    /// Bytes of what is read.
    bytes: u64,
}

/// Elements of a projection with its bias.
const fn biased(out: u64, input: u64) -> u64 {
    out * input + out
}

/// A transformer of SigLIP's kind: patches, positions, and `layers` layers with two LayerNorms.
const fn vision(layers: u64, hidden: u64, inner: u64, patch: u64, positions: u64) -> u64 {
    let layer = 4 * biased(hidden, hidden) + biased(inner, hidden) + biased(hidden, inner) + 4 * hidden;
    layers * layer + biased(hidden, patch) + positions * hidden
}

/// Elements and bytes of matrices in FP8 with an f32 for each block of 128 × 128.
const fn fp8(matrices: &[(u64, u64)]) -> (u64, u64) {
    let (mut elements, mut bytes, mut i) = (0, 0, 0);
    while i < matrices.len() {
        let (out, input) = matrices[i];
        elements += out * input;
        bytes += out * input + 4 * out.div_ceil(128) * input.div_ceil(128);
        i += 1;
    }
    (elements, bytes)
}

/// Multi-head latent attention of DeepSeek-V3's kind with the low ranks 1536 and 512.
const fn latent(hidden: u64, heads: u64) -> (u64, u64) {
    fp8(&[(1536, hidden), (heads * 192, 1536), (512 + 64, hidden), (heads * 256, 512), (hidden, heads * 128)])
}

/// A gated MLP.
const fn mlp(hidden: u64, inner: u64) -> (u64, u64) {
    fp8(&[(inner, hidden), (inner, hidden), (hidden, inner)])
}

// Hidden size of DeepSeek-V3 and Kimi K2, and the norms of one of their layers.
const H: u64 = 7168;
const NORMS: u64 = 2 * H + 1536 + 512;
/// DeepSeek-V3's layer 61: an ordinary layer, an embedding and a head of its own, a projection of
/// both inputs, and three norms.
const DEEPSEEK_NEXT: u64 =
    latent(H, 128).0 + NORMS + 257 * mlp(H, 2048).0 + 256 * H + 256 + 2 * 129_280 * H + 2 * H * H + 3 * H;
const DEEPSEEK_BYTES: u64 = 61 * (latent(H, 128).1 + 2 * NORMS)
    + 3 * mlp(H, 18_432).1
    + 58 * (257 * mlp(H, 2048).1 + 2 * 256 * H + 4 * 256)
    + 2 * (2 * 129_280 * H + H);
const KIMI_BYTES: u64 = 61 * (latent(H, 64).1 + 2 * NORMS)
    + mlp(H, 18_432).1
    + 60 * (385 * mlp(H, 2048).1 + 2 * 384 * H + 4 * 384)
    + 2 * (2 * 163_840 * H + H);
/// Attention of a layer of MiniMax-M2, and one of its experts.
const MINIMAX: [(u64, u64); 2] = [fp8(&[(6144, 3072), (1024, 3072), (1024, 3072), (3072, 6144)]), mlp(3072, 1536)];
const MINIMAX_BYTES: u64 = 62
    * (MINIMAX[0].1 + 256 * MINIMAX[1].1 + 2 * (2 * 3072 + 6144 + 1024) + 2 * 256 * 3072 + 4 * 256)
    + 2 * (2 * 200_064 * 3072 + 3072);
/// Layer 47 of GLM-4.7-Flash: as DeepSeek-V3's.
const GLM_NEXT: u64 = 768 * 2048
    + 20 * 256 * 768
    + 576 * 2048
    + 20 * 448 * 512
    + 2048 * 20 * 256
    + 2 * 2048
    + 768
    + 512
    + 65 * 3 * 1536 * 2048
    + 64 * 2048
    + 64
    + 2 * 154_880 * 2048
    + 2 * 2048 * 2048
    + 3 * 2048;
/// Qwen3.5's layer for multi-token prediction: one with full attention and experts, a projection of
/// both inputs, and three norms.
const QWEN_NEXT: u64 = (2 * 16 + 2 * 2 + 16) * 256 * 2048
    + 2 * 256
    + 2 * 2048
    + 256 * 3 * 512 * 2048
    + 256 * 2048
    + 3 * 512 * 2048
    + 2048
    + 2 * 2048 * 2048
    + 3 * 2048;
/// Qwen3.5's tower: patches of 2 × 16 × 16 pixels, and four of them become one token.
const QWEN_SEES: u64 =
    vision(27, 1152, 4304, 3 * 2 * 16 * 16, 2304) + 2 * 1152 + biased(4608, 4608) + biased(2048, 4608);
/// Gemma 3's tower of 64 × 64 patches, its last norm, and what makes tokens of it.
const GEMMA_SEES: u64 = vision(27, 1152, 4304, 3 * 14 * 14, 4096) + 2 * 1152 + 1152 * 5376 + 1152;

const CHECKPOINTS: &[Checkpoint] = &[
    Checkpoint {
        name: "deepseek-ai/DeepSeek-V3",
        config: r#"{"model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
            "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
            "n_shared_experts": 1, "n_routed_experts": 256, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
            "n_group": 8, "topk_group": 4, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
            "routed_scaling_factor": 2.5, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128, "v_head_dim": 128, "hidden_act": "silu", "num_nextn_predict_layers": 1,
            "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128]}, "torch_dtype": "bfloat16"}"#,
        // The hub also counts the 41,540,496 scales.
        published: 3_918_786_560 + 680_571_043_840 + 41_555_600 - 41_540_496,
        source: "safetensors.parameters of the hub's answer about the model: BF16, F8_E4M3 and F32",
        unread: DEEPSEEK_NEXT,
        bytes: DEEPSEEK_BYTES,
    },
    Checkpoint {
        name: "moonshotai/Kimi-K2-Instruct",
        config: r#"{"model_type": "kimi_k2", "vocab_size": 163840, "hidden_size": 7168, "intermediate_size": 18432,
            "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 64, "num_key_value_heads": 64,
            "n_shared_experts": 1, "n_routed_experts": 384, "num_experts_per_tok": 8, "first_k_dense_replace": 1,
            "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
            "routed_scaling_factor": 2.827, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128, "v_head_dim": 128, "hidden_act": "silu", "num_nextn_predict_layers": 0,
            "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128]}, "torch_dtype": "bfloat16"}"#,
        published: 1_026_408_232_448,
        source: "a count over the headers of all 61 files, which hold 1,029,173,256,720 bytes",
        unread: 0,
        // In each layer there are 112 bytes of a buffer of the rotary embedding.
        bytes: 1_029_173_256_720 - 61 * 112,
    },
    Checkpoint {
        name: "MiniMaxAI/MiniMax-M2",
        config: r#"{"model_type": "minimax_m2", "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 1536,
            "num_hidden_layers": 62, "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "rotary_dim": 64,
            "num_local_experts": 256, "num_experts_per_tok": 8, "use_qk_norm": true, "qk_norm_type": "per_layer",
            "use_routing_bias": true, "scoring_func": "sigmoid", "tie_word_embeddings": false,
            "quantization_config": {"activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8",
            "weight_block_size": [128, 128], "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]}}"#,
        published: 228_689_764_864,
        source: "the hub's count of parameters",
        unread: 0,
        bytes: MINIMAX_BYTES,
    },
    Checkpoint {
        name: "Qwen/Qwen3.5-35B-A3B",
        config: r#"{"model_type": "qwen3_5_moe", "tie_word_embeddings": false, "text_config": {"model_type": "qwen3_5_moe_text",
            "vocab_size": 248320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
            "num_key_value_heads": 2, "head_dim": 256, "attn_output_gate": true, "full_attention_interval": 4,
            "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
            "linear_num_value_heads": 32, "linear_value_head_dim": 128, "moe_intermediate_size": 512, "num_experts": 256,
            "num_experts_per_tok": 8, "shared_expert_intermediate_size": 512, "mtp_num_hidden_layers": 1,
            "dtype": "bfloat16"}}"#,
        published: 35_951_822_704,
        source: "half the total_size of the hub's index, 71,903,645,408 bytes in bf16",
        unread: QWEN_NEXT + QWEN_SEES,
        bytes: 71_903_645_408 - 2 * (QWEN_NEXT + QWEN_SEES),
    },
    Checkpoint {
        name: "zai-org/GLM-4.7-Flash",
        config: r#"{"model_type": "glm4_moe_lite", "vocab_size": 154880, "hidden_size": 2048, "intermediate_size": 10240,
            "moe_intermediate_size": 1536, "num_hidden_layers": 47, "num_attention_heads": 20, "num_key_value_heads": 20,
            "n_shared_experts": 1, "n_routed_experts": 64, "num_experts_per_tok": 4, "first_k_dense_replace": 1,
            "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "topk_method": "noaux_tc", "routed_scaling_factor": 1.8,
            "q_lora_rank": 768, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 192, "v_head_dim": 256,
            "num_nextn_predict_layers": 1, "partial_rotary_factor": 1.0, "tie_word_embeddings": false}"#,
        published: 31_221_488_576,
        source: "no total was found: a sum over the shapes of modeling_glm4_moe_lite and its extra layer",
        unread: GLM_NEXT,
        // The biases of 46 routers are in f32.
        bytes: 2 * (31_221_488_576 - GLM_NEXT) + 2 * 46 * 64,
    },
    Checkpoint {
        name: "google/gemma-3-27b-it",
        config: r#"{"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": {"model_type": "gemma3_text", "head_dim": 128,
            "hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32, "num_hidden_layers": 62,
            "num_key_value_heads": 16, "query_pre_attn_scalar": 168, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024}}"#,
        published: 27_432_406_640,
        source: "the hub's count of parameters",
        unread: GEMMA_SEES,
        bytes: 2 * (27_432_406_640 - GEMMA_SEES),
    },
    Checkpoint {
        name: "EleutherAI/pythia-12b",
        config: r#"{"model_type": "gpt_neox", "vocab_size": 50688, "hidden_size": 5120, "intermediate_size": 20480,
            "num_hidden_layers": 36, "num_attention_heads": 40, "rotary_pct": 0.25, "rotary_emb_base": 10000,
            "max_position_embeddings": 2048, "use_parallel_residual": true, "hidden_act": "gelu",
            "tie_word_embeddings": false, "torch_dtype": "float16"}"#,
        published: 11_846_072_320,
        source: "the model card",
        unread: 0,
        bytes: 2 * 11_846_072_320,
    },
    Checkpoint {
        name: "allenai/OLMo-2-1124-7B",
        config: r#"{"model_type": "olmo2", "vocab_size": 100352, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "rope_theta": 500000,
            "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "float32"}"#,
        published: 7_298_617_344,
        source: "safetensors.parameters of the hub's answer about the model, all of them F32",
        unread: 0,
        bytes: 4 * 7_298_617_344,
    },
];

/// OLMo 2 7B, whose config says float32, was announced with half its bytes.
#[test]
fn a_config_announces_the_total_that_is_published_of_its_checkpoint() {
    let mut wrong = Vec::new();
    for Checkpoint { name, config, published, source, unread, bytes } in CHECKPOINTS {
        let (config, _) = language_model(Config::parse(config, "config.json").unwrap()).unwrap();
        let got = totals(&model(&config, &Released).unwrap());
        if got != (published - unread, *bytes) {
            wrong.push(format!("{name}: {got:?}, not {:?} ({source})", (published - unread, bytes)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(KIMI_BYTES, CHECKPOINTS[1].bytes);
}
