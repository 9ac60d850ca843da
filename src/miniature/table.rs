//! The table of miniature models: the config in the released spelling, and the planted features.
//!
//! Planted features are systematic where the original project expected systematic ones (gpt-oss),
//! and probabilistic elsewhere.

use super::Planted;

pub(super) struct Recipe {
    pub name: &'static str,
    pub config: &'static str,
    pub planted: &'static [Planted],
    /// The number of the first shard: 0 for gpt-oss, 1 for all others.
    pub first_shard: usize,
}

impl Recipe {
    pub(super) fn classification(&self) -> &'static str {
        match self.planted.iter().any(|planted| planted.layer_share >= 1.0) {
            true => "SYSTEMATIC",
            false => "PROBABILISTIC",
        }
    }
}

pub(super) const MINIATURES: &[Recipe] = &[
    Recipe {
        name: "olmoe",
        config: r#"{
            "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 10,
            "num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": 16, "num_experts_per_tok": 4,
            "norm_topk_prob": false, "clip_qkv": null, "attention_bias": false, "hidden_act": "silu",
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null,
            "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(17, 14.0, 0.4), Planted::new(90, 24.0, 0.5)],
        first_shard: 1,
    },
    Recipe {
        name: "mixtral",
        config: r#"{
            "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 10,
            "num_attention_heads": 8, "num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 2,
            "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(5, 20.0, 0.3), Planted::new(64, 12.0, 0.6), Planted::new(101, 30.0, 0.5)],
        first_shard: 1,
    },
    Recipe {
        name: "gpt_oss",
        config: r#"{
            "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "vocab_size": 264, "hidden_size": 128,
            "intermediate_size": 64, "num_hidden_layers": 10, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 2, "experts_per_token": 2,
            "attention_bias": true, "hidden_act": "silu", "initial_context_length": 4096,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention",
                "sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
                "full_attention"],
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 150000,
            "rope_scaling": { "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                "original_max_position_embeddings": 4096, "truncate": false },
            "sliding_window": 32, "swiglu_limit": 7.0, "tie_word_embeddings": false,
            "quantization_config": { "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
                "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"] }
        }"#,
        planted: &[Planted::new(23, 40.0, 1.0), Planted::new(77, 20.0, 1.0), Planted::new(110, 16.0, 0.4)],
        first_shard: 0,
    },
    Recipe {
        name: "gpt_oss_large",
        config: r#"{
            "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "vocab_size": 264, "hidden_size": 160,
            "intermediate_size": 64, "num_hidden_layers": 14, "num_attention_heads": 8, "num_key_value_heads": 2,
            "head_dim": 32, "num_local_experts": 16, "num_experts_per_tok": 4, "experts_per_token": 4,
            "attention_bias": true, "hidden_act": "silu", "initial_context_length": 4096,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention",
                "sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
                "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 150000,
            "rope_scaling": { "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                "original_max_position_embeddings": 4096, "truncate": false },
            "sliding_window": 32, "swiglu_limit": 7.0, "tie_word_embeddings": false,
            "quantization_config": { "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
                "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"] }
        }"#,
        planted: &[Planted::new(12, 50.0, 1.0), Planted::new(88, 30.0, 1.0), Planted::new(140, 24.0, 1.0)],
        first_shard: 0,
    },
    Recipe {
        name: "qwen3_moe",
        config: r#"{
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 48,
            "num_hidden_layers": 12, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 48,
            "num_experts": 16, "num_experts_per_tok": 4, "norm_topk_prob": true, "decoder_sparse_step": 1,
            "mlp_only_layers": [], "attention_bias": false, "hidden_act": "silu", "max_position_embeddings": 40960,
            "max_window_layers": 12, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": null,
            "sliding_window": null, "use_sliding_window": false, "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(31, 18.0, 0.34), Planted::new(66, 26.0, 0.5)],
        first_shard: 1,
    },
    Recipe {
        name: "qwen3_next",
        config: r#"{
            "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32, "num_hidden_layers": 12, "full_attention_interval": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "partial_rotary_factor": 0.25,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 32,
            "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4, "num_experts": 16, "num_experts_per_tok": 4,
            "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": false,
            "hidden_act": "silu", "max_position_embeddings": 262144, "rms_norm_eps": 1e-06, "rope_theta": 10000000,
            "rope_scaling": null, "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(9, 22.0, 0.6), Planted::new(54, 14.0, 0.4)],
        first_shard: 1,
    },
    Recipe {
        name: "glm4_moe",
        config: r#"{
            "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 48,
            "num_hidden_layers": 10, "first_k_dense_replace": 1, "num_attention_heads": 6, "num_key_value_heads": 2,
            "head_dim": 32, "partial_rotary_factor": 0.5, "use_qk_norm": false, "attention_bias": true,
            "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
            "norm_topk_prob": true, "routed_scaling_factor": 1.0, "num_nextn_predict_layers": 1, "hidden_act": "silu",
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 1000000, "rope_scaling": null,
            "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(44, 20.0, 0.7), Planted::new(97, 28.0, 0.6), Planted::new(120, 13.0, 0.3)],
        first_shard: 1,
    },
    // These are kinds of layers that the models of the sweep do not have.
    Recipe {
        name: "deepseek_v3",
        config: r#"{
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 48,
            "num_hidden_layers": 10, "first_k_dense_replace": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
            "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
            "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2,
            "norm_topk_prob": true, "routed_scaling_factor": 1.0, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
            "hidden_act": "silu", "attention_bias": false, "max_position_embeddings": 163840, "rms_norm_eps": 1e-06,
            "rope_theta": 10000, "rope_scaling": { "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
                "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096 },
            "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(11, 18.0, 0.5), Planted::new(84, 26.0, 0.4)],
        first_shard: 1,
    },
    Recipe {
        name: "gemma2",
        config: r#"{
            "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 10,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 32,
            "hidden_activation": "gelu_pytorch_tanh", "attention_bias": false, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "tie_word_embeddings": true
        }"#,
        planted: &[Planted::new(35, 16.0, 0.4), Planted::new(118, 24.0, 0.6)],
        first_shard: 1,
    },
    Recipe {
        name: "gemma4",
        config: r#"{
            "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "torch_dtype": "bfloat16",
            "vocab_size": 264, "vocab_size_per_layer_input": 264, "hidden_size": 128, "intermediate_size": 192,
            "hidden_size_per_layer_input": 16, "num_hidden_layers": 12, "num_kv_shared_layers": 4,
            "use_double_wide_mlp": true, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32,
            "global_head_dim": 64, "attention_k_eq_v": false, "sliding_window": 32,
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention",
                "sliding_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
                "sliding_attention", "sliding_attention", "full_attention"],
            "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": 30.0, "attention_bias": false,
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "tie_word_embeddings": true
        }"#,
        planted: &[Planted::new(8, 20.0, 0.5), Planted::new(71, 15.0, 0.34)],
        first_shard: 1,
    },
    Recipe {
        name: "phi",
        config: r#"{
            "architectures": ["PhiForCausalLM"], "model_type": "phi", "torch_dtype": "bfloat16", "vocab_size": 264,
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 10, "num_attention_heads": 4,
            "num_key_value_heads": 4, "partial_rotary_factor": 0.5, "qk_layernorm": false, "hidden_act": "gelu_new",
            "max_position_embeddings": 2048, "layer_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null,
            "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(50, 18.0, 0.5), Planted::new(93, 25.0, 0.4)],
        first_shard: 1,
    },
    Recipe {
        name: "bloom",
        config: r#"{
            "architectures": ["BloomForCausalLM"], "model_type": "bloom", "torch_dtype": "bfloat16", "vocab_size": 264,
            "n_embed": 128, "n_layer": 10, "num_attention_heads": 4, "layer_norm_epsilon": 1e-05,
            "apply_residual_connection_post_layernorm": false
        }"#,
        planted: &[Planted::new(28, 22.0, 0.4), Planted::new(105, 17.0, 0.5)],
        first_shard: 1,
    },
    Recipe {
        name: "nemotron_h",
        config: r#"{
            "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "torch_dtype": "bfloat16",
            "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 12,
            "hybrid_override_pattern": "MEM*MEM-MEM*", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4,
            "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 4, "moe_intermediate_size": 48,
            "moe_shared_expert_intermediate_size": 64, "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
            "routed_scaling_factor": 1.0, "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "use_bias": false,
            "use_conv_bias": true, "mlp_bias": false, "attention_bias": false, "layer_norm_epsilon": 1e-05,
            "max_position_embeddings": 262144, "tie_word_embeddings": false
        }"#,
        planted: &[Planted::new(14, 24.0, 0.5), Planted::new(62, 16.0, 0.34)],
        first_shard: 1,
    },
    Recipe {
        name: "lfm2",
        config: r#"{
            "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "torch_dtype": "bfloat16", "vocab_size": 264,
            "hidden_size": 128, "block_ff_dim": 256, "block_auto_adjust_ff_dim": false, "num_hidden_layers": 10,
            "num_attention_heads": 4, "num_key_value_heads": 2, "conv_L_cache": 3, "conv_bias": false,
            "full_attn_idxs": [2, 5, 8], "max_position_embeddings": 128000, "norm_eps": 1e-05, "rope_theta": 1000000.0,
            "tie_word_embeddings": true
        }"#,
        planted: &[Planted::new(3, 19.0, 0.6), Planted::new(79, 27.0, 0.4)],
        first_shard: 1,
    },
];
