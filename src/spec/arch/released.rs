//! Tests of the released models of the sweep, whose configs are re-typed without keys that have no
//! effect: the sizes must be exact to the byte, and any additional key must be refused by name.
//!
//! Byte counts are the `total_size` of the hub's index (Qwen3-30B-A3B, Mixtral, gpt-oss-20b) or
//! sums over transformers' parameters (the others); layers for multi-token prediction are left out.

use super::*;
use crate::spec::inventory;
use crate::spec::{Attention, Mixer};
use crate::vocabulary::Span;

struct Release {
    name: &'static str,
    config: &'static str,
    parameters: u64,
    bytes: u64,
}

const RELEASES: &[Release] = &[
    Release {
        name: "OLMoE-1B-7B-0125",
        config: r#"{"model_type": "olmoe", "attention_bias": false, "clip_qkv": null, "hidden_act": "silu", "hidden_size": 2048,
            "intermediate_size": 1024, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 64,
            "num_experts_per_tok": 8, "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-05,
            "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false, "vocab_size": 50304}"#,
        parameters: 6_919_161_856,
        bytes: 13_838_323_712,
    },
    Release {
        name: "gpt-oss-20b",
        config: r#"{"model_type": "gpt_oss", "attention_bias": true, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
            "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880,
            "max_position_embeddings": 131072, "num_attention_heads": 64, "num_experts_per_tok": 4,
            "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
            "quantization_config": {"modules_to_not_convert": ["model.embed_tokens", "lm_head"], "quant_method": "mxfp4"},
            "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false}, "rope_theta": 150000,
            "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false, "vocab_size": 201088}"#,
        parameters: 20_914_757_184,
        bytes: 13_761_264_768,
    },
    Release {
        name: "gpt-oss-120b",
        config: r#"{"model_type": "gpt_oss", "experts_per_token": 4, "head_dim": 64, "hidden_size": 2880,
            "intermediate_size": 2880, "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 36,
            "num_key_value_heads": 8, "num_local_experts": 128, "quantization_config": {"quant_method": "mxfp4"},
            "rope_theta": 150000, "sliding_window": 128, "vocab_size": 201088}"#,
        parameters: 116_829_156_672,
        bytes: 65_248_815_744,
    },
    Release {
        name: "Qwen3-30B-A3B",
        config: r#"{"model_type": "qwen3_moe", "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
            "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "max_window_layers": 48,
            "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32,
            "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
            "use_sliding_window": false, "vocab_size": 151936}"#,
        parameters: 30_532_122_624,
        bytes: 61_064_245_248,
    },
    Release {
        name: "Mixtral-8x7B-v0.1",
        config: r#"{"model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
            "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
            "num_local_experts": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
            "tie_word_embeddings": false, "vocab_size": 32000}"#,
        parameters: 46_702_792_704,
        bytes: 93_405_585_408,
    },
    Release {
        name: "Qwen3-Next-80B-A3B",
        config: r#"{"model_type": "qwen3_next", "decoder_sparse_step": 1, "full_attention_interval": 4, "head_dim": 256,
            "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5120, "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
            "linear_value_head_dim": 128, "mlp_only_layers": [], "moe_intermediate_size": 512, "norm_topk_prob": true,
            "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10, "num_hidden_layers": 48,
            "num_key_value_heads": 2, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06, "rope_theta": 10000000,
            "shared_expert_intermediate_size": 512, "tie_word_embeddings": false, "use_sliding_window": false,
            "vocab_size": 151936}"#,
        parameters: 79_674_391_296,
        bytes: 159_348_782_592,
    },
    Release {
        name: "GLM-4.5-Air",
        config: r#"{"model_type": "glm4_moe", "attention_bias": true, "first_k_dense_replace": 1, "head_dim": 128,
            "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 10944, "moe_intermediate_size": 1408,
            "n_group": 1, "n_routed_experts": 128, "n_shared_experts": 1, "norm_topk_prob": true,
            "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8,
            "num_nextn_predict_layers": 1, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05, "rope_theta": 1000000,
            "routed_scaling_factor": 1.0, "topk_group": 1, "use_qk_norm": false, "vocab_size": 151552}"#,
        parameters: 106_852_251_264,
        bytes: 213_704_514_048,
    },
];

fn spec(text: &str) -> Result<Model> {
    model(&Config::parse(text, "config.json")?, &Released)
}

/// The `config` with one more key.
fn with(config: &str, key: &str, value: &str) -> String {
    config.replacen('{', &format!("{{\"{key}\": {value}, "), 1)
}

#[test]
fn sizes_are_those_of_the_checkpoints() {
    for release in RELEASES {
        let tensors = inventory::tensors(&spec(release.config).unwrap());
        let parameters: u64 = tensors.iter().map(|(tensor, _)| tensor.weights).sum();
        let bytes: u64 = tensors.iter().map(|(tensor, role)| inventory::released_bytes(tensor, *role)).sum();
        assert_eq!((parameters, bytes), (release.parameters, release.bytes), "{}", release.name);
    }
}

#[test]
fn what_is_not_understood_is_named() {
    for release in RELEASES {
        let error = spec(&with(release.config, "residual_divisor", "0.22")).unwrap_err();
        assert!(
            error.message.contains("setting not understood: `residual_divisor`: 0.22"),
            "{}: {error}",
            release.name
        );
        let error = spec(&with(release.config, "residual_multiplier", "0.22")).unwrap_err();
        assert!(error.message.contains("`residual_multiplier` is 0.22: it asks for"), "{}: {error}", release.name);
    }
    let gpt_oss = RELEASES[2].config.replace("mxfp4", "aqlm");
    let error = spec(&gpt_oss).unwrap_err();
    assert!(error.message.contains("`quant_method` \"aqlm\""), "{error}");
}

/// The bytes that a config announces follow from the sizes in the papers of the released models.
#[test]
fn bytes_of_quantised_releases_follow_from_their_configs() {
    let bytes = |config: &str| -> u64 {
        let tensors = inventory::tensors(&spec(config).unwrap());
        tensors.iter().map(|(tensor, role)| inventory::released_bytes(tensor, *role)).sum()
    };
    // DeepSeek-V3 has codes of one byte, and an f32 for each 128 × 128.
    let fp8 = |out: u64, input: u64| out * input + 4 * out.div_ceil(128) * input.div_ceil(128);
    let attention = fp8(1536, 7168) + fp8(24576, 1536) + fp8(576, 7168) + fp8(32768, 512) + fp8(7168, 16384);
    let norms = 2 * (2 * 7168 + 1536 + 512);
    let mlp = |width: u64| 2 * fp8(width, 7168) + fp8(7168, width);
    let mixture = 257 * mlp(2048) + 2 * 256 * 7168 + 4 * 256;
    let ends = 2 * 2 * 129_280 * 7168 + 2 * 7168;
    assert_eq!(bytes(DEEPSEEK_V3), 61 * (attention + norms) + 3 * mlp(18432) + 58 * mixture + ends);
    // The same config with attention and routers left plain, and the rest in NVFP4: half a byte per
    // weight, one byte per 16 weights, and a number.
    let nvfp4 = |out: u64, input: u64| out * input / 2 + out * input / 16 + 4;
    let plain = 2 * (1536 * 7168 + 24576 * 1536 + 576 * 7168 + 32768 * 512 + 7168 * 16384);
    let mlp = |width: u64| 2 * nvfp4(width, 7168) + nvfp4(7168, width);
    let mixture = 257 * mlp(2048) + 2 * 256 * 7168 + 4 * 256;
    let settings =
        r#"{"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head", "*self_attn*"]}"#;
    let released = DEEPSEEK_V3.replace(FP8, settings);
    assert_eq!(bytes(&released), 61 * (plain + norms) + 3 * mlp(18432) + 58 * mixture + ends);
}

const FP8: &str =
    r#"{"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}"#;
const DEEPSEEK_V3: &str = r#"{"model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
    "n_shared_experts": 1, "n_routed_experts": 256, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "n_group": 8,
    "topk_group": 4, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "routed_scaling_factor": 2.5,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 4096,
    "tie_word_embeddings": false, "attention_bias": false,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}}"#;

#[test]
fn an_unknown_architecture_is_named_with_those_that_are_known() {
    let error = spec(r#"{"model_type": "jamba", "hidden_size": 1024}"#).unwrap_err();
    assert!(error.message.contains("`jamba` is a real architecture"), "{error}");
    assert!(error.hint.unwrap().contains("qwen3_next"));
}

#[test]
fn both_spellings_of_a_config_give_the_same_model() {
    let old = spec(RELEASES[5].config).unwrap();
    let new = RELEASES[5]
        .config
        .replace(
            "\"rope_theta\": 10000000",
            "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000000}",
        )
        .replace("\"num_experts\"", "\"num_local_experts\"");
    assert_eq!(format!("{old:?}"), format!("{:?}", spec(&new).unwrap()));
}

/// A small config of the dense Qwen3, which the tests vary.
const QWEN3: &str = r#"{"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 32,
    "num_hidden_layers": 2, "vocab_size": 100}"#;
const OPT: &str = r#"{"model_type": "opt", "hidden_size": 64, "ffn_dim": 96, "num_attention_heads": 4,
    "num_hidden_layers": 2, "max_position_embeddings": 32, "vocab_size": 100}"#;

fn attention(config: &str, layer: usize) -> Attention {
    match &spec(config).unwrap().layers[layer].mixer.as_ref().unwrap().body {
        Mixer::Attention(attention) => (**attention).clone(),
        _ => panic!("layer {layer} is linear"),
    }
}

#[test]
fn what_a_config_leaves_out_is_what_transformers_takes() {
    let sizes = |config: &str| {
        let attention = attention(config, 0);
        (attention.kv_heads, attention.head_dim)
    };
    assert_eq!(sizes(QWEN3), (32, 128));
    // A null is not a missing key.
    assert_eq!(sizes(&with(QWEN3, "head_dim", "null")), (32, 2));
    let windowed = with(QWEN3, "use_sliding_window", "true");
    assert_eq!(attention(&windowed, 1).span, Span::All); // max_window_layers is 28
    let windowed = with(&windowed, "max_window_layers", "1");
    assert_eq!((attention(&windowed, 0).span, attention(&windowed, 1).span), (Span::All, Span::Window(4096)));
    // A gpt-oss without `quantization_config` has been unpacked.
    let unpacked = RELEASES[2].config.replace(r#""quantization_config": {"quant_method": "mxfp4"},"#, "");
    let tensors = inventory::tensors(&spec(&unpacked).unwrap());
    let bytes: u64 = tensors.iter().map(|(tensor, role)| inventory::released_bytes(tensor, *role)).sum();
    assert_eq!(bytes, 2 * RELEASES[2].parameters);
}

#[test]
fn settings_that_cannot_be_computed_are_refused_by_name() {
    for (config, key, value) in [
        (QWEN3, "layer_types", r#"["sliding_attention", "full_attention"]"#),
        (QWEN3, "layer_types", r#"["full_attention"]"#),
        (QWEN3, "num_key_value_heads", "5"),
        (QWEN3, "hidden_act", "\"xielu\""),
        (QWEN3, "partial_rotary_factor", "0.5"),
        (OPT, "layer_norm_elementwise_affine", "false"),
        (RELEASES[1].config, "swiglu_alpha", "1.5"),
        (RELEASES[6].config, "use_sliding_window", "true"),
    ] {
        let error = spec(&with(config, key, value)).expect_err(key);
        assert!(error.message.contains(&format!("`{key}`")), "{key}: {error}");
    }
    let groups = RELEASES[6].config.replace(r#""n_group": 1"#, r#""n_group": 3"#);
    assert!(spec(&groups).unwrap_err().message.contains("`n_group` is 3"));
    let narrow = RELEASES[1].config.replace(r#""hidden_size": 2880"#, r#""hidden_size": 2890"#);
    assert!(spec(&narrow).unwrap_err().message.contains("`hidden_size` is 2890, not a multiple of the 32 values"));
}

#[test]
fn a_model_with_an_indexer_is_computed_for_as_many_positions_as_that_chooses() {
    for config in [
        include_str!("../../../tests/fixtures/deepseek_v32/config.json"),
        include_str!("../../../tests/fixtures/glm_moe_dsa/config.json"),
    ] {
        let with = |value: &str| spec(&config.replace("\"index_topk\": 2048", &format!("\"index_topk\": {value}")));
        let most = |value: &str| with(value).unwrap().max_positions.unwrap().positions;
        assert_eq!((most("2048"), most("16"), most("null")), (2048, 16, 2048));
        assert!(with("0").unwrap_err().message.contains("`index_topk` is 0"));
    }
}

#[test]
fn longer_sequences_of_another_magnitude_are_refused_and_those_of_the_same_are_not() {
    let config = include_str!("../../../tests/fixtures/phimoe/config.json");
    let most = |config: &str| spec(config).unwrap().max_positions.map(|max| max.positions);
    assert_eq!(most(config), None);
    let other = config.replace("\"long_mscale\": 1.243163121016122", "\"long_mscale\": 1.5");
    assert_ne!(other, config);
    assert_eq!(most(&other), Some(4096));
}
