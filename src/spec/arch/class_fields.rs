//! Tests of the keys that a `config.json` leaves out, against the defaults of transformers'
//! configuration classes, which also write them when they save a config.
//! `tests/configs/class_fields.json` has the fields of the class of every architecture with their
//! defaults.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::*;

const FIELDS: &str = include_str!("../../../tests/configs/class_fields.json");

/// Sizes, counts, and the kinds of layers. A config must have them, even if its class has a
/// default.
#[rustfmt::skip]
const SIZES: &[&str] = &[
    "d_model", "hidden_size", "intermediate_size", "intermediate_size_mlp", "kv_lora_rank", "linear_key_head_dim",
    "linear_num_key_heads", "linear_num_value_heads", "linear_value_head_dim", "mamba_head_dim", "mamba_num_heads",
    "max_position_embeddings", "moe_intermediate_size", "moe_k", "moe_num_experts", "moe_shared_expert_intermediate_size", "n_embd",
    "layers_block_type", "n_groups", "n_head", "n_heads", "n_layer", "n_layers", "n_positions", "n_routed_experts", "num_attention_heads", "num_experts",
    "num_experts_per_tok", "num_heads", "num_hidden_layers", "num_key_value_heads", "num_layers", "num_local_experts", "q_lora_rank",
    "qk_nope_head_dim", "qk_rope_head_dim", "shared_expert_intermediate_size", "ssm_state_size", "v_head_dim", "vocab_size", "ffn_dim",
];
/// Old spellings of the contents of `rope_parameters`.
const OLD_ROPES: &[&str] = &[
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
    "rotary_emb_base",
    "rotary_pct",
    "rope_local_base_freq",
    "rotary_dim",
    "original_max_position_embeddings",
];

/// Latent attention has a key for each head. With another count transformers fails, and the program
/// takes the number of heads.
const OF_ALL_HEADS: (&str, &[&str]) =
    ("num_key_value_heads", &["deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2", "mistral4"]);
/// Values of keys that a class leaves open, or whose default cannot make a model: more than one
/// expert is needed, and a head of a whole size.
const OPEN: &[(&str, &str, u64)] = &[
    ("deepseek_v2", "num_experts_per_tok", 6),
    ("dots1", "num_experts_per_tok", 6),
    ("dots1", "n_routed_experts", 64),
    ("glm4_moe", "head_dim", 128),
];

pub(super) type Keys = Map<String, Value>;

fn table() -> Keys {
    serde_json::from_str(FIELDS).unwrap()
}

/// The language models of all fixtures of this type, each with the name of its folder.
pub(super) fn fixtures(model_type: &str) -> Vec<(String, Keys)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = Vec::new();
    for folder in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(folder.join("config.json")) else { continue };
        let config: Value = serde_json::from_str(&text.replace("Infinity", "\"Infinity\"")).unwrap();
        let config = config.get("text_config").unwrap_or(&config).as_object().unwrap().clone();
        if config.get("model_type").is_some_and(|name| name == model_type) {
            found.push((folder.file_name().unwrap().to_string_lossy().into_owned(), config));
        }
    }
    found
}

pub(super) fn read(config: &Keys) -> Result<Model> {
    model(&Config::parse(&Value::Object(config.clone()).to_string(), "config.json")?, &Released)
}

/// The description of the model in words, or the error.
pub(super) fn outcome(config: &Keys) -> std::result::Result<String, String> {
    read(config).map(|model| format!("{model:?}")).map_err(|error| error.message)
}

/// The fault, if a config without `key` is not the same as one with the class's `default`.
fn fault(config: &Keys, key: &str, names: &[String], default: &Value) -> Option<String> {
    let mut bare = config.clone();
    bare.retain(|other, _| {
        other != key
            && !names.contains(other)
            && (key != "rope_parameters" || !OLD_ROPES.contains(&other.as_str()))
            // The list of layers decides, and these keys only without it.
            && (!key.contains("layers") && !key.contains("pattern") || other != "layer_types")
    });
    let mut spelled = bare.clone();
    spelled.insert(key.to_string(), default.clone());
    match (outcome(&bare), outcome(&spelled)) {
        (_, Err(message)) if message.contains("not understood") => Some(message),
        (Ok(bare), Ok(spelled)) if bare == spelled => None,
        (Err(bare), Err(spelled)) if bare == spelled => None,
        (Err(message), _) if message.contains("` is missing") && SIZES.contains(&key) => None,
        (Ok(_), Ok(_)) => Some("left out it is another model".to_string()),
        (bare, spelled) => Some(format!("left out: {:?}, spelled out: {:?}", bare.err(), spelled.err())),
    }
}

/// Without these keys, the biases of GLM-4 and the shared experts of Trinity were missing, norms
/// had another epsilon, and ropes another base.
#[test]
fn what_a_config_leaves_out_is_the_default_of_its_class() {
    let table = table();
    let mut faults = Vec::new();
    for model_type in supported() {
        let class = table.get(model_type).unwrap_or_else(|| panic!("no fields of {model_type}"));
        let fixtures = fixtures(model_type);
        assert!(!fixtures.is_empty(), "no fixture is a {model_type}");
        let fields = class["fields"].as_object().unwrap().iter();
        let read = |key: &str| key != OF_ALL_HEADS.0 || !OF_ALL_HEADS.1.contains(&model_type);
        for (key, default) in fields.filter(|(key, _)| read(key)) {
            let names: Vec<String> =
                serde_json::from_value(class["names"].get(key).cloned().unwrap_or(json!([]))).unwrap();
            for (fixture, config) in &fixtures {
                if let Some(fault) = fault(config, key, &names, default) {
                    faults.push(format!("{fixture}: {key}, {default} of {model_type}: {fault}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A config was "not understood" if it had a field of its class that no release has.
#[test]
fn a_config_that_a_class_writes_of_its_defaults_is_understood() {
    let table = table();
    let mut faults = Vec::new();
    for model_type in supported() {
        let mut config = table[model_type]["fields"].as_object().unwrap().clone();
        // These keys belong to the base class.
        let base = json!({"model_type": model_type, "architectures": ["X"], "chunk_size_feed_forward": 0, "dtype": "bfloat16",
            "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "is_encoder_decoder": false,
            "output_attentions": false, "output_hidden_states": false, "problem_type": null, "return_dict": true,
            "transformers_version": "5.23.0"});
        config.extend(base.as_object().unwrap().clone());
        let open = OPEN.iter().filter(|(of, ..)| *of == model_type);
        config.extend(open.map(|(_, key, value)| (key.to_string(), json!(value))));
        if let Err(error) = read(&config) {
            faults.push(format!("{model_type}: {error}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
