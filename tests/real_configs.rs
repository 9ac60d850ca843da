//! Tests of users' configs in whole runs: keys without effect change no number, notes are given
//! once, and a key that would change the result is refused with what it asks for.
//! `docs/config_keys.md` describes each key.

use std::collections::BTreeMap;

use outlier::record::ComputeDtype;
use serde_json::{Map, Value, json};

use crate::oracle;
use crate::project::{Project, repository};

/// ‖a − b‖ / ‖b‖ per tensor.
const TOLERANCE: f64 = 1e-4;
const FAILED: i32 = 3;
const LOAD: &str = "let model = load_model(\"model\"); print(model.num_layers);";

/// A fixture in a project, its config extended.
fn with(fixture: &str, more: Value) -> Project {
    let project = Project::new();
    project.copy(&format!("tests/fixtures/{fixture}"), "model");
    let mut config = project.json("model/config.json");
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    project.file("model/config.json", config.to_string());
    project
}

/// Keys of releases that are read, and whose values in the fixtures belong to the fixtures' numbers.
const OF_THE_MODEL: &[&str] = &[
    "activation_function",
    "attention_bias",
    "first_k_dense_replace",
    "layer_norm_epsilon",
    "layer_types",
    "norm_topk_prob",
    "partial_rotary_factor",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "sliding_window",
    "tie_word_embeddings",
];

/// By architecture, the keys of its accepted releases that its fixture does not have, with the first value of each.
fn keys_of_releases() -> BTreeMap<String, Map<String, Value>> {
    let text = std::fs::read_to_string(repository().join("tests/configs/releases.json")).unwrap();
    let table: Value = serde_json::from_str(&text).unwrap();
    let mut all: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for release in table["releases"].as_array().unwrap().iter().filter(|release| release["refused"].is_null()) {
        let model_type = release["type"].as_str().unwrap();
        let path = repository().join(format!("tests/fixtures/{model_type}/config.json"));
        // Keys of several releases go together in these.
        if !oracle::SWEEP.contains(&model_type) {
            continue;
        }
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let keys = all.entry(model_type.to_string()).or_default();
        for (key, value) in release["keys"].as_object().unwrap() {
            if fixture.get(key).is_none() && !OF_THE_MODEL.contains(&key.as_str()) {
                keys.entry(key.clone()).or_insert(value.clone());
            }
        }
    }
    all.retain(|_, keys| !keys.is_empty());
    all
}

#[test]
fn keys_without_effect_change_no_number_of_a_run() {
    let all = keys_of_releases();
    assert!(all.values().map(Map::len).sum::<usize>() > 80, "{all:?}");
    for (model_type, keys) in all {
        let project = with(&model_type, Value::Object(keys.clone()));
        let (_, plain) = oracle::run(&oracle::fixtures().join(&model_type), ComputeDtype::F32);
        let (_, got) = oracle::run(&project.path("model"), ComputeDtype::F32);
        assert_eq!(got, plain, "{model_type}: {keys:?}");
        let (worst, name) = oracle::compare(&project.path("model"), &got);
        assert!(worst < TOLERANCE, "{model_type}: {name} differs by {worst}");
    }
}

#[test]
fn what_has_no_effect_although_one_may_think_so_is_told_once() {
    let rope = json!({"attn_factor": 0.878, "factor": 4.0, "original_max_position_embeddings": 8, "rope_type": "yarn"});
    let project = with("qwen3", json!({"rope_scaling": rope, "auto_map": {"AutoConfig": "configuration.Own"}}));
    let script = format!("{LOAD} let again = load_model(\"model\"); print(again.num_layers);");
    let stderr = project.script(&script).ends(0).stderr;
    let said = |text: &str| stderr.matches(text).count();
    let note = "note: model/config.json: `rope_scaling.attn_factor` is 0.878, which has no effect: transformers does not read it \
                for rope type \"yarn\"";
    assert_eq!((said(note), said("`auto_map` is an object of 1")), (1, 1), "{stderr}");
    // What everybody has is no news.
    let stderr = with("llama", json!({"pretraining_tp": 1, "use_cache": true})).script(LOAD).ends(0).stderr;
    assert!(!stderr.lines().any(|line| line.starts_with("note: ") && !line.starts_with("note: device")), "{stderr}");
}

#[test]
fn values_that_would_change_the_result_are_refused_with_what_they_ask_for() {
    for (fixture, key, value, problem, hint) in [
        (
            "qwen3_moe",
            "qkv_bias",
            json!(true),
            "is true: it asks for biases",
            "it has no effect at false, 0, null or empty",
        ),
        (
            "qwen3_moe",
            "shared_expert_intermediate_size",
            json!(64),
            "is 64: it asks for a shared expert",
            "it has no effect at",
        ),
        (
            "qwen3_moe",
            "use_qk_norm",
            json!(false),
            "is false: it asks for queries and keys without norms",
            "no effect at true",
        ),
        (
            "llama",
            "rope_interleaved",
            json!(true),
            "is true: it asks for rotary dimensions in neighbouring pairs",
            "no effect at",
        ),
        (
            "llama",
            "is_causal",
            json!(false),
            "is false: it asks for attention in both directions",
            "it has no effect at true",
        ),
        ("llama", "residual_multiplier", json!(0.22), "is 0.22: it asks for a factor", "it has no effect at 1"),
        (
            "llama",
            "per_layer_config",
            json!({"0": {"hidden_act": "relu"}}),
            "is an object of 1: it gives single layers",
            "no effect",
        ),
        (
            "llama",
            "draft_vocab_size",
            json!(32000),
            "is 32000: it is a draft for speculative decoding",
            "docs/config_keys.md",
        ),
        (
            "olmoe",
            "sliding_window",
            json!(8),
            "is 8: transformers computes it with flash attention",
            "it has no effect at",
        ),
        (
            "gpt_oss",
            "hidden_act",
            json!("gelu"),
            "is \"gelu\": it asks for another activation",
            "\"silu\" or \"swish\"",
        ),
    ] {
        let mut more = Map::new();
        more.insert(key.to_string(), value);
        let project = with(fixture, Value::Object(more));
        project.refuses(LOAD, FAILED, &format!("model/config.json: `{key}` {problem}"), hint);
    }
}

#[test]
fn a_misspelt_key_is_told_from_the_one_that_was_meant() {
    let project = with("llama", json!({"rms_norm_epsilon": 0.25}));
    project.refuses(LOAD, FAILED, "setting not understood: `rms_norm_epsilon`: 0.25", "did you mean `rms_norm_eps`?");
}

#[test]
fn ropes_that_contradict_each_other_are_refused() {
    let more = json!({
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "rope_scaling": {"type": "linear", "factor": 2.0},
    });
    let problem = "`rope_scaling` and `rope_parameters` are both present and turn by different angles";
    with("qwen3", more).refuses(LOAD, FAILED, problem, "config.json");
}
