//! Other names for keys of config.json: those in the `attribute_map` of transformers' configuration
//! classes.

use serde_json::{Map, Value};

/// A name that a config may have in place of `key`, in configs of these values of `model_type`.
struct Alias {
    name: &'static str,
    key: &'static str,
    of: &'static [&'static str],
}

#[rustfmt::skip]
const ALIASES: &[Alias] = &[
    Alias { name: "hidden_size", key: "n_embd", of: &["gpt2", "gptj"] },
    Alias { name: "hidden_size", key: "d_model", of: &["mpt"] },
    Alias { name: "head_dim", key: "qk_rope_head_dim", of: &["glm4_moe_lite"] },
    Alias { name: "layer_types", key: "layers_block_type", of: &["nemotron_h"] },
    Alias { name: "max_position_embeddings", key: "n_positions", of: &["gpt2", "gptj"] },
    Alias { name: "num_attention_heads", key: "n_head", of: &["bloom", "gpt2", "gptj"] },
    Alias { name: "num_attention_heads", key: "n_heads", of: &["mpt"] },
    Alias { name: "num_attention_heads", key: "num_heads", of: &["gpt_neo"] },
    Alias { name: "num_experts", key: "moe_num_experts", of: &["ernie4_5_moe"] },
    Alias { name: "num_experts", key: "n_routed_experts", of: &["deepseek_v2", "deepseek_v32", "glm_moe_dsa"] },
    Alias { name: "num_experts", key: "num_local_experts", of: &["gpt_oss", "minimax_m2", "mixtral", "qwen3_moe"] },
    Alias { name: "num_experts_per_tok", key: "moe_k", of: &["ernie4_5_moe"] },
    Alias { name: "num_experts_per_tok", key: "moe_topk", of: &["hunyuan_v1_moe"] },
    Alias { name: "num_hidden_layers", key: "n_layer", of: &["bloom", "gpt2", "gptj"] },
    Alias { name: "num_hidden_layers", key: "n_layers", of: &["mpt"] },
    Alias { name: "num_hidden_layers", key: "num_layers", of: &["gpt_neo"] },
    Alias { name: "num_local_experts", key: "n_routed_experts",
            of: &["deepseek_v3", "deepseek_v32", "dots1", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2", "mistral4", "nemotron_h"] },
    Alias { name: "num_local_experts", key: "num_experts", of: &["hunyuan_v1_moe", "hy_v3", "olmoe"] },
    Alias { name: "num_mtp_layers", key: "num_nextn_predict_layers", of: &["deepseek_v3", "glm4_moe", "kimi_k2"] },
];

/// Keys that a file calls by another name, with that name.
pub(super) type Renamed = Vec<(&'static str, &'static str)>;

/// Puts values of a config under the keys that its architecture reads. Where the file has both
/// names with two values, each stays where it is.
pub(super) fn renamed(config: &mut Map<String, Value>) -> Renamed {
    let mut renamed = Renamed::new();
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_string();
    for Alias { name, key, .. } in ALIASES.iter().filter(|alias| alias.of.contains(&model_type.as_str())) {
        let Some(value) = config.get(*name).filter(|value| !value.is_null()).cloned() else { continue };
        match config.get(*key).filter(|value| !value.is_null()) {
            Some(other) if *other != value => continue,
            Some(_) => (),
            None => {
                config.insert(key.to_string(), value);
                renamed.push((key, name));
            }
        }
        config.remove(*name);
    }
    renamed
}
