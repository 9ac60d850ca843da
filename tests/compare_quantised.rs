//! Tests of `scripts/compare_quantised.rhai`, on a fixture and its quantised form in integers of
//! eight bits, which the test makes.

use half::bf16;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{self, Array, Arrays};
use crate::project::Project;

const SCRIPT: &str = "scripts/compare_quantised.rhai";
const PAIR: &str = "results/compared/base_and_small";
const WORDS: [&str; 8] =
    ["run", SCRIPT, "--base", "base", "--quantised", "small", "--ids", "base/reference.safetensors"];

/// Each projection in `bits` bits, as compressed-tensors stores integers that have a byte each.
fn quantised(arrays: &mut Arrays, bits: u32) {
    let names: Vec<String> = arrays.keys().filter(|name| name.ends_with("_proj.weight")).cloned().collect();
    for name in names {
        let Array { shape, data, .. } = arrays.remove(&name).unwrap();
        let values: Vec<f32> = data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect();
        let most = ((1 << (bits - 1)) - 1) as f32;
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks(shape[1]) {
            let scale = row.iter().fold(0f32, |most, value| most.max(value.abs())) / most;
            codes.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
            scales.extend(scale.to_le_bytes());
        }
        arrays.insert(format!("{name}_scale"), Array::new(Dtype::F32, &[shape[0], 1], scales));
        arrays.insert(name, Array::new(Dtype::I8, &shape, codes));
    }
}

/// `base/`, and `small/` in so few bits that it computes something else.
fn project() -> Project {
    let project = Project::new();
    project.copy(SCRIPT, SCRIPT).copy("tests/fixtures/llama", "base").copy("tests/fixtures/llama", "small");
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        checkpoint::change(&project.path(&format!("small/{shard}")), |arrays| quantised(arrays, 3));
    }
    // Scales are in no index: the names of tensors there are not looked at.
    let mut config = project.json("small/config.json");
    let weights = json!({ "num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true });
    config["quantization_config"] = json!({
        "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
        "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } },
    });
    project.file("small/config.json", config.to_string());
    project
}

#[test]
fn a_model_and_its_quantised_form() {
    let project = project();
    let first = project.run(&WORDS).ends(0);
    for name in ["svg", "png", "json"] {
        assert!(project.has(&format!("{PAIR}.{name}")), "{name}: {:?}", project.files("results/compared"));
        assert!(first.stdout.contains(&format!("written: {PAIR}.{name}\n")), "{}", first.stdout);
    }
    let whole = project.json(&format!("{PAIR}.json"));
    let analyses =
        ["base", "small"].map(|name| project.json(&format!("results/compared/{name}/final_analysis_results.json")));
    // Which dimensions pass, counted here.
    let dims = |analysis: &Value| -> Vec<u64> {
        let features = analysis["pooled"]["features"].as_array().unwrap();
        features.iter().map(|feature| feature["feature_dim"].as_u64().unwrap()).collect()
    };
    let [ours, theirs] = [0, 1].map(|i| dims(&analyses[i]));
    let common: Vec<u64> = ours.iter().filter(|dim| theirs.contains(dim)).copied().collect();
    assert_eq!(whole["agreement"]["common"], json!(common));
    let either = ours.len() + theirs.len() - common.len();
    assert!(either > 0, "some features pass");
    assert_eq!(whole["agreement"]["jaccard"], json!(common.len() as f64 / either as f64));
    // Weights of three bits are other weights: the loss differs, and is tested with the sequences as pairs.
    let losses = [0, 1].map(|i| whole["perplexity"][i]["mean_nll"]["value"].as_f64().unwrap());
    let tests = whole["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 4);
    let statistic = tests[3]["statistic"].as_f64().unwrap();
    assert!(losses[0] != losses[1] && (statistic - (losses[1] - losses[0])).abs() < 1e-6, "{losses:?} {statistic}");
    assert_eq!(tests[3]["sizes"], json!([3, 3]));
    assert!(first.stdout.contains("d_z"), "{}", first.stdout);
    let row = |measure: &str| whole["rows"].as_array().unwrap().iter().find(|row| row["measure"] == measure).unwrap();
    let stored = row("most weights are");
    assert_eq!((&stored["base"], &stored["quantised"]), (&json!("BF16"), &json!("INT8, one scale for each row")));
}

#[test]
fn what_is_stored_is_not_made_again() {
    let project = project();
    let first = project.run(&WORDS).ends(0);
    let again = project.run(&WORDS).ends(0);
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(again.stderr.matches("stored already").count(), 2, "{}", again.stderr);
    // Other tokens are another question.
    let words = [&WORDS[..6], &["--ids", "other.json"]].concat();
    project.file("other.json", json!([[1, 2, 3, 4], [5, 6, 7, 8]]).to_string());
    let other = project.run(&words).ends(0);
    assert_eq!(other.stderr.matches("stored already").count(), 0, "{}", other.stderr);
}

#[test]
fn a_plan_of_the_comparison_has_both_passes() {
    let planned = project().run(&[&["plan"], &WORDS[1..]].concat()).ok();
    assert!(planned.contains("2 passes"), "{planned}");
}

#[test]
fn models_that_are_not_forms_of_each_other() {
    let project = project();
    project.copy("examples/shakespeare-olmoe", "other");
    let words = ["run", SCRIPT, "--base", "base", "--quantised", "other", "--ids", "base/reference.safetensors"];
    let told = project.run(&words).ends(1).stderr;
    assert!(told.contains("hidden_size") && told.contains("one must be the quantised form of the other"), "{told}");
    let told = project.run(&["run", SCRIPT, "--base", "base"]).ends(2).stderr;
    assert!(told.contains("--quantised"), "{told}");
}
