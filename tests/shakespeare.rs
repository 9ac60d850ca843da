//! Tests of the trained model that comes with the project against Hugging Face transformers: every
//! norm output, the loss, the features at every threshold, and the first threshold experiment,
//! scripts/quickstart.rhai.

use std::path::PathBuf;
use std::sync::LazyLock;

use outlier::record::{Activations, ComputeDtype, Criterion, Detection};
use outlier::stats;
use serde_json::Value;

use crate::oracle;
use crate::project::{FINAL, Project, repository};

/// ‖a − b‖ / ‖b‖ per tensor.
const TOLERANCE: f64 = 1e-4;
/// thresholds.json holds six decimals.
const SHARE_TOLERANCE: f64 = 1e-6;

fn folder() -> PathBuf {
    repository().join("examples/shakespeare-olmoe")
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// One pass, for all tests.
static RUN: LazyLock<(Activations, oracle::Tensors)> = LazyLock::new(|| oracle::run(&folder(), ComputeDtype::F32));

#[test]
fn every_norm_output_agrees() {
    let (worst, at) = oracle::compare(&folder(), &RUN.1);
    assert!(worst <= TOLERANCE, "relative error {worst:.2e} at {at}");
    let layers = json("expected.json")["num_layers"].as_u64().unwrap() as usize;
    assert_eq!(RUN.1.keys().filter(|name| name.ends_with("layernorm")).count(), 2 * layers);
}

#[test]
fn the_loss_agrees() {
    let expected: Vec<f64> =
        json("expected.json")["mean_nll"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
    let got = RUN.0.mean_nll.as_ref().unwrap();
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert!((*got as f64 - expected).abs() <= TOLERANCE * expected, "{got} instead of {expected}");
    }
}

#[test]
fn no_feature_at_dettmers_threshold() {
    let found = stats::detect(&RUN.0, &Criterion::default()).unwrap();
    let expected = json("expected.json");
    assert_eq!(expected["threshold"], 6.0);
    assert_eq!((found.features.len(), found.num_features_hit), (0, expected["features"].as_array().unwrap().len()));
    let largest = expected["max_over_all"].as_f64().unwrap();
    assert!((found.max_magnitude as f64 - largest).abs() <= TOLERANCE * largest, "{}", found.max_magnitude);
}

fn check_features(found: &Detection, expected: &Value, threshold: &str) {
    let expected = expected.as_array().unwrap();
    let mut features: Vec<_> = found.features.iter().collect();
    features.sort_by_key(|feature| feature.feature_dim);
    let dims: Vec<u64> = features.iter().map(|feature| feature.feature_dim as u64).collect();
    let want: Vec<u64> = expected.iter().map(|feature| feature["feature_dim"].as_u64().unwrap()).collect();
    assert_eq!(dims, want, "dims at {threshold}");
    for (got, want) in features.iter().zip(expected) {
        for (key, value) in [
            ("layer_percentage", got.layer_percentage),
            ("layer_percentage_blocks", got.layer_percentage_blocks),
            ("seq_percentage", got.seq_percentage),
        ] {
            let want = want[key].as_f64().unwrap();
            let dim = got.feature_dim;
            assert!(
                (value - want).abs() <= SHARE_TOLERANCE,
                "dim {dim} at {threshold}: {key} {value}, expected {want}"
            );
        }
    }
}

#[test]
fn features_at_every_threshold() {
    let thresholds = json("thresholds.json");
    let thresholds = thresholds["by_magnitude_threshold"].as_object().unwrap();
    assert!(thresholds.values().any(|features| !features.as_array().unwrap().is_empty()));
    for (threshold, expected) in thresholds {
        let criterion = Criterion { magnitude_threshold: threshold.parse().unwrap(), ..Criterion::default() };
        check_features(&stats::detect(&RUN.0, &criterion).unwrap(), expected, threshold);
    }
}

#[test]
fn the_first_threshold_experiment() {
    let project = Project::new();
    project.copy("scripts/quickstart.rhai", "scripts/quickstart.rhai").copy("examples", "examples");
    let text = project.run(&["run", "scripts/quickstart.rhai"]).ok();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    for (threshold, features) in json("thresholds.json")["by_magnitude_threshold"].as_object().unwrap() {
        let row = rows.iter().find(|row| row.first() == Some(&threshold.trim_end_matches(".0")));
        let row = row.unwrap_or_else(|| panic!("no row for {threshold} in\n{text}"));
        let count = features.as_array().unwrap().len();
        assert_eq!(row[1], count.to_string(), "{text}");
        assert_eq!(row[3], if count == 0 { "NONE" } else { "PROBABILISTIC" }, "{text}");
    }
    assert!(text.contains("results: results/quickstart\n"), "{text}");
    // The answer is the last thing on the screen: a sentence and its table.
    let sentence =
        text.lines().position(|line| line.starts_with("The small Shakespeare model has 1 outlier feature at |x| ≥ 4,"));
    let sentence = sentence.unwrap_or_else(|| panic!("no sentence in\n{text}"));
    assert!(text.lines().skip(sentence + 1).all(|line| line.starts_with(['┌', '│', '╞', '└'])), "{text}");
    let demo = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    let recipe = demo.split("\ndemo:").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(recipe.lines().last().unwrap().ends_with("outlier run scripts/quickstart.rhai"), "{recipe}");
    let summary = &project.json(&format!("results/quickstart/{FINAL}"))["analysis_summary"];
    assert_eq!((&summary["num_features"], &summary["synthetic_model"]), (&Value::from(1), &Value::from(false)));
}
