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
];
