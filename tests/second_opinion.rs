//! Tests against candle-transformers: its own models give the same last logits on the same
//! fixtures.
//!
//! It shares the tensor library with the engine and nothing else, and it was written by other people than the reference.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mixtral, qwen3, qwen3_moe};
use outlier::record::ComputeDtype;
use serde_json::{Value, json};

use crate::oracle::{fixtures, relative_error, run};

const TOLERANCE: f64 = 1e-4;

/// All weights of a fixture, as f32.
fn weights(folder: &Path) -> VarBuilder<'static> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_model = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("model") && name.ends_with(".safetensors")
    };
    let tensors: HashMap<String, Tensor> =
        files.filter(is_model).flat_map(|file| candle_core::safetensors::load(file, &Device::Cpu).unwrap()).collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

fn config(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

/// `last_logits` makes a model, gives it one sequence [1, positions] and returns the logits of the last position.
fn agrees(fixture: &str, last_logits: impl Fn(Value, VarBuilder, &Tensor) -> Result<Tensor>) {
    let folder = fixtures().join(fixture);
    let (_, full) = run(&folder, ComputeDtype::F32);
    let reference = candle_core::safetensors::load(folder.join("reference.safetensors"), &Device::Cpu).unwrap();
    let ids = reference["input_ids"].to_dtype(DType::U32).unwrap();
    let mut theirs = Vec::new();
    for s in 0..ids.dim(0).unwrap() {
        let logits =
            last_logits(config(&folder), weights(&folder), &ids.narrow(0, s, 1).unwrap().contiguous().unwrap());
        let logits = logits.unwrap_or_else(|e| panic!("{fixture}: {e}"));
        assert_eq!(logits.elem_count(), logits.dim(D::Minus1).unwrap(), "{fixture}: one position");
        theirs.extend(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    let error = relative_error(&full["final_logits_last"], &theirs);
    assert!(error <= TOLERANCE, "{fixture}: last logits differ by {error:.2e}");
}

#[test]
fn llama() {
    agrees("llama_square", |config, weights, ids| {
        let config: llama::LlamaConfig = serde_json::from_value(config).unwrap();
        let config = config.into_config(false);
        let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
        llama::Llama::load(weights, &config)?.forward(ids, 0, &mut cache)
    });
}

#[test]
fn mixtral() {
    agrees("mixtral", |mut config, weights, ids| {
        // It knows no Mixtral without a window; this one is longer than the sequences.
        assert!(config["sliding_window"].is_null());
        config["sliding_window"] = json!(4096);
        config["use_flash_attn"] = json!(false);
        let config: mixtral::Config = serde_json::from_value(config).unwrap();
        mixtral::Model::new(&config, weights)?.forward(ids, 0)
    });
}

#[test]
fn qwen3() {
    agrees("qwen3", |config, weights, ids| {
        let config: qwen3::Config = serde_json::from_value(config).unwrap();
        qwen3::ModelForCausalLM::new(&config, weights)?.forward(ids, 0)
    });
}

#[test]
fn qwen3_moe() {
    agrees("qwen3_moe", |config, weights, ids| {
        let config: qwen3_moe::Config = serde_json::from_value(config).unwrap();
        qwen3_moe::ModelForCausalLM::new(&config, weights)?.forward(ids, 0)
    });
}
