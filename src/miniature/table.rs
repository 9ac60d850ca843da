//! The miniature models, one row each: config in the released spelling, and what is planted.
//!
//! Systematic features where the original project expected systematic ones (gpt-oss), probabilistic ones elsewhere.

use super::Planted;

pub struct Recipe {
    pub name: &'static str,
    pub config: &'static str,
    pub planted: &'static [Planted],
    /// gpt-oss numbers its shards from 0, everybody else from 1.
    pub first_shard: usize,
}

impl Recipe {
    pub fn classification(&self) -> &'static str {
        match self.planted.iter().any(|planted| planted.layer_share >= 1.0) {
            true => "SYSTEMATIC",
            false => "PROBABILISTIC",
        }
    }
}

pub const MINIATURES: &[Recipe] = &[
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
];
