//! Tests of the perplexity of a trained model against Hugging Face transformers, alone and in the
//! pass of the extraction.

use serde_json::Value;

use crate::project::{FINAL, Project, repository};

/// Relative.
const TOLERANCE: f64 = 1e-4;

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= TOLERANCE * want
}

/// exp of the mean of the losses that transformers computed, and of each.
fn expected(fixture: &str) -> (f64, Vec<f64>) {
    let path = repository().join(fixture).join("expected.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let losses: Vec<f64> = json["mean_nll"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    ((losses.iter().sum::<f64>() / losses.len() as f64).exp(), losses.iter().map(|loss| loss.exp()).collect())
}

#[track_caller]
fn agrees(got: &Value, fixture: &str) {
    let (whole, each) = expected(fixture);
    let value = got["perplexity"]["value"].as_f64().unwrap();
    assert!(close(value, whole), "{value} instead of {whole}");
    let sequences = got["per_sequence"].as_array().unwrap();
    assert_eq!(sequences.len(), each.len());
    assert!(sequences.iter().zip(each).all(|(got, want)| close(got.as_f64().unwrap(), want)), "{sequences:?}");
    let (low, high) = (got["perplexity"]["low"].as_f64().unwrap(), got["perplexity"]["high"].as_f64().unwrap());
    assert!(low < value && value < high, "{low} to {high}");
}

#[test]
fn of_a_model_on_tokens() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let script = r#"
        let model = load_model("model");
        let tokens = load_tokens(#{ ids: "model/reference.safetensors" });
        print(perplexity(model, tokens, #{ n_resamples: 1000 }).to_json());
    "#;
    agrees(&project.script(script).json(), "examples/shakespeare-olmoe");
}

#[test]
fn in_the_pass_of_the_extraction_and_in_its_result() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let script = r#"
        let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: "model/reference.safetensors" }), #{ logits: true });
        save_results("demo", #{ activations: acts, found: acts.detect_outliers(), intervals: acts.bootstrap_ci(#{ n_resamples: 200 }) });
        print(acts.perplexity(#{ n_resamples: 200 }).to_json());
        print(load_results("demo").perplexity(#{ n_resamples: 200 }).to_json());
    "#;
    let text = project.script(script).ok();
    let (fresh, stored) = text.trim().split_once('\n').unwrap();
    assert_eq!(fresh, stored);
    let fresh: Value = serde_json::from_str(fresh).unwrap();
    agrees(&fresh, "examples/shakespeare-olmoe");
    assert_eq!(project.json(&format!("results/demo/{FINAL}"))["perplexity"], fresh);
}

#[test]
fn without_losses_there_is_none() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    let script =
        r#"load_model("model").extract_layernorms(load_tokens(#{ ids: "model/reference.safetensors" })).perplexity()"#;
    let outcome = project.script(script);
    assert!(outcome.code == 1 && outcome.stderr.contains("this record has no losses"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("logits: true"), "{}", outcome.stderr);
}
