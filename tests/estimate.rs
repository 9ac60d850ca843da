//! Tests of `estimate_vram` against measurements: memory at several sizes, bytes read, and the
//! effect of settings.

use std::process::Command;

use serde_json::Value;

use crate::project::{Outcome, Project, stripped};
use crate::streaming::Shape;

/// How far the estimate of memory may be from the measured peak, either way.
pub const TOLERANCE: f64 = 0.15;

fn both(shape: &Shape, sequences: usize, length: usize, options: &str, extract: &str) -> (Value, Value) {
    both_with(shape, sequences, length, options, extract, &|_| ())
}

/// The estimate, and the measurements of a run with the same settings in a process of its own, which `with` prepares.
pub fn both_with(
    shape: &Shape,
    sequences: usize,
    length: usize,
    options: &str,
    extract: &str,
    with: &dyn Fn(&mut Command),
) -> (Value, Value) {
    let project = Project::new();
    shape.write(&project);
    let row: Vec<usize> = (0..length).map(|t| (t * 7 + 3) % 256).collect();
    project.file("ids.json", serde_json::to_string(&vec![row; sequences]).unwrap());
    let script = format!(
        "let model = load_model(\"model\", #{{ {options} }});
         let acts = model.extract_layernorms(load_tokens(#{{ ids: \"ids.json\" }}), #{{ {extract} }});
         let estimate = estimate_vram(\"model\", #{{
             gpus: model.device.split(\",\").len(), num_sequences: {sequences}, sequence_length: {length}, {options}{comma}{extract}
         }});
         print(#{{ e: estimate, m: acts.measurements }}.to_json());",
        comma = if options.is_empty() || extract.is_empty() { "" } else { ", " },
    );
    // What a build has for debuggers is no memory of a run.
    let mut command = project.file("run.rhai", script).command_of(stripped(), &["run", "run.rhai"]);
    with(&mut command);
    let mut json = Outcome::of(command.output().unwrap()).json();
    (json["e"].take(), json["m"].take())
}

#[track_caller]
fn agree(shape: &Shape, sequences: usize, length: usize, options: &str, extract: &str) {
    let (estimate, measured) = both(shape, sequences, length, options, extract);
    let (estimated, peak) =
        (estimate["total_bytes"].as_f64().unwrap(), measured["peak_memory_bytes"].as_f64().unwrap());
    println!("estimated {estimated} bytes, measured {peak}: {:.2}", estimated / peak);
    if cfg!(target_os = "linux") {
        assert!((estimated / peak - 1.0).abs() <= TOLERANCE, "estimated {estimate}, measured {measured}");
    }
}

#[test]
fn weights_are_most_of_it() {
    // Large layers, few tokens; enough of them that the next layer arrives while one computes.
    agree(&Shape { hidden: 1024, inner: 4096, experts: 0, layers: 4 }, 2, 256, "", "");
}

#[test]
fn activations_are_most_of_it() {
    agree(&Shape { hidden: 512, inner: 1024, experts: 0, layers: 3 }, 8, 512, "", "");
}

#[test]
fn a_budget_bounds_the_workspace() {
    agree(&Shape { hidden: 512, inner: 1024, experts: 0, layers: 3 }, 8, 512, "", "memory_budget: 40000000");
}

#[test]
fn one_layer_at_a_time() {
    agree(&Shape { hidden: 1024, inner: 2048, experts: 0, layers: 4 }, 4, 256, "chunk_layers: 1", "");
}

#[test]
fn experts_and_logits() {
    agree(&Shape { hidden: 512, inner: 512, experts: 8, layers: 3 }, 8, 512, "", "logits: true");
}

#[test]
fn bf16() {
    agree(&Shape { hidden: 1024, inner: 2048, experts: 0, layers: 4 }, 4, 512, "dtype: \"bf16\"", "");
}

#[test]
fn what_is_read_is_what_was_announced_but_for_unused_embeddings() {
    let shape = Shape { hidden: 64, inner: 96, experts: 0, layers: 3 };
    let (estimate, measured) = both(&shape, 1, 256, "", "");
    assert_eq!(estimate["read_bytes"], measured["bytes_read"]);
}

#[test]
fn embeddings_per_layer_and_borrowed_keys_are_counted() {
    let project = Project::new();
    project.copy("tests/fixtures/gemma4_e", "own").copy("tests/fixtures/gemma4_e", "none");
    let config = project.text("none/config.json");
    let without = config
        .replace("\"hidden_size_per_layer_input\": 8", "\"hidden_size_per_layer_input\": 0")
        .replace("\"num_kv_shared_layers\": 3", "\"num_kv_shared_layers\": 0")
        .replace("\"use_double_wide_mlp\": true", "\"use_double_wide_mlp\": false");
    assert_ne!(config, without);
    project.file("plain/config.json", without).file("alone/config.json", config);
    let hidden = |model: &str| {
        let options = "#{ num_sequences: 32, sequence_length: 64 }";
        let json = project.script(&format!("print(estimate_vram(\"{model}\", {options}).to_json());")).json();
        json["hidden_bytes"].as_u64().unwrap()
    };
    let (tokens, vocab) = (32 * 64, 256);
    assert_eq!(hidden("plain"), tokens * 40 * 4);
    // Six layers of 8 numbers for each id, and the keys and values of one layer of each kind that later ones may still use.
    let most = tokens * 40 * 4 + vocab * 48 * 4 + tokens * 2 * (8 + 16) * 4;
    for model in ["alone", "own"] {
        assert!(hidden(model) > tokens * 40 * 4 + vocab * 48 * 4 && hidden(model) <= most, "{}", hidden(model));
    }
}
