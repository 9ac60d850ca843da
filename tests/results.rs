//! Tests of result folders: the keys of the original project, what is replaced by saving again,
//! what is read back, and that equal runs give equal bytes.

use serde_json::{Value, json};

use crate::project::{FINAL, Outcome, Project};

/// Analyses a model on its reference tokens: `$ROWS` picks sequences.
const ANALYSIS: &str = r#"
let model = load_model("model");
let all = load_tokens(#{ ids: "model/reference.safetensors" });
let tokens = load_tokens(#{ ids: all.ids.extract($ROWS) });
let acts = model.extract_layernorms(tokens, #{ logits: true, thresholds: [5.25] });
let found = acts.detect_outliers();
let intervals = acts.bootstrap_ci(#{ n_resamples: 500, seed: 3 });
let path = save_results("demo", #{ activations: acts, found: found, intervals: intervals, settings: #{ note: "a test" } });
"#;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    project
}

/// A project with `results/demo` from some of the sequences.
fn analysed(rows: &str) -> Project {
    let project = project();
    project.script(&ANALYSIS.replace("$ROWS", rows)).ok();
    project
}

/// The same, with so many threads.
fn analysed_on(threads: &str) -> Project {
    let project = project();
    project.file("script.rhai", ANALYSIS.replace("$ROWS", "0..3"));
    let mut command = project.command(&["run", "script.rhai"]);
    Outcome::of(command.env("RAYON_NUM_THREADS", threads).output().unwrap()).ok();
    project
}

fn batches(project: &Project) -> Vec<String> {
    project.files("results/demo").into_iter().filter(|name| name.starts_with("batch_")).collect()
}

#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "`{key}` is missing in {value:.300}");
    }
}

#[test]
fn every_file_is_there() {
    let project = analysed("0..2");
    assert_eq!(
        project.files("results/demo"),
        ["activations.stats", "batch_000_results.json", "batch_001_results.json", "config.json", "features.csv", FINAL,]
    );
}

#[test]
fn the_keys_are_those_of_the_original() {
    let project = analysed("0..2");
    let whole = project.json(&format!("results/demo/{FINAL}"));
    has_keys(&whole, &["analysis_summary", "run_config", "top_features", "all_systematic_outliers", "batch_results"]);
    has_keys(&whole["analysis_summary"], &["total_batches", "total_sequences", "total_systematic_outliers"]);
    let run_config =
        ["model", "dataset", "num_sequences", "sequence_length", "batch_size", "threshold", "experiment_name"];
    has_keys(&whole["run_config"], &run_config);
    has_keys(&whole["top_features"][0], &["feature_dim", "max_magnitude", "occurrences"]);
    let outlier = &whole["all_systematic_outliers"][0];
    has_keys(outlier, &["feature_dim", "layer_percentage", "seq_percentage", "max_magnitude", "total_occurrences"]);
    has_keys(outlier, &["layers_affected", "example_values"]);
    has_keys(&whole["batch_results"][0], &["batch_id", "systematic_outliers", "outlier_summary"]);
    let norm = &whole["batch_results"][0]["outlier_summary"]["layer_stats"]["layers.1.input_layernorm"];
    has_keys(norm, &["num_outliers", "max_magnitude", "outlier_percentage", "shape"]);
    // Ours, beside them.
    has_keys(&whole, &["schema_version", "pooled", "intervals", "mean_nll", "provenance", "measurements"]);
    has_keys(&whole["provenance"], &["program", "model", "tokens", "seed", "ladder"]);
    has_keys(&whole["provenance"]["model"], &["id", "revision", "files", "dtype", "device"]);
    has_keys(&whole["measurements"], &["wall_seconds", "bytes_read", "bytes_needed", "peak_memory_bytes"]);
    assert_eq!(whole["settings"], json!({ "note": "a test" }));
}

#[test]
fn lists_and_counts_agree() {
    let project = analysed("0..2");
    let whole = project.json(&format!("results/demo/{FINAL}"));
    let files: Vec<Value> =
        batches(&project).iter().map(|name| project.json(&format!("results/demo/{name}"))).collect();
    assert_eq!(whole["batch_results"], json!(files));
    let listed: Vec<&Value> = files.iter().flat_map(|b| b["systematic_outliers"].as_array().unwrap()).collect();
    assert_eq!(whole["all_systematic_outliers"], json!(listed));
    assert!(!listed.is_empty());
    let summary = &whole["analysis_summary"];
    assert_eq!(summary["total_systematic_outliers"], listed.len());
    assert_eq!((&summary["total_batches"], &summary["total_sequences"]), (&json!(2), &json!(2)));
    let occurrences: u64 =
        whole["top_features"].as_array().unwrap().iter().map(|f| f["occurrences"].as_u64().unwrap()).sum();
    assert_eq!(occurrences, listed.len() as u64);
    let csv = project.text("results/demo/features.csv");
    let dims: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let pooled = whole["pooled"]["features"].as_array().unwrap().iter().map(|f| f["feature_dim"].to_string());
    assert_eq!(dims, pooled.collect::<Vec<_>>());
}

#[test]
fn saving_again_leaves_nothing_of_before() {
    let project = analysed("0..3");
    assert_eq!(batches(&project).len(), 3);
    project.script(&ANALYSIS.replace("$ROWS", "1..3")).ok();
    assert_eq!(batches(&project), ["batch_000_results.json", "batch_001_results.json"]);
    assert_eq!(project.json(&format!("results/demo/{FINAL}"))["analysis_summary"]["total_sequences"], 2);
    assert_eq!(project.script("print(load_results(\"demo\").activations.num_sequences)").ok(), "2\n");
}

#[test]
fn a_stored_record_answers_like_a_fresh_one() {
    let questions = r#"
        for threshold in [3.0, 4.5, 5.25, 6.0, 12.0, 1024.0] {
            for unit in ["norm", "block"] {
                for scope in ["pooled", "per_sequence"] {
                    for skip in [0, 1] {
                        let found = SUBJECT.detect_outliers(#{
                            magnitude_threshold: threshold, layer_unit: unit, scope: scope, skip_positions: skip,
                            min_seq_percentage: 0.01,
                        });
                        print(found.to_json());
                    }
                }
            }
        }
        print(SUBJECT.bootstrap_ci(#{ n_resamples: 200, magnitude_threshold: 4.5 }).to_json());
    "#;
    let project = project();
    let fresh = format!("{}{}", ANALYSIS.replace("$ROWS", "0..2"), questions.replace("SUBJECT", "acts"));
    let fresh = project.script(&fresh).ok();
    let stored = |subject: &str| {
        let load = "let stored = load_results(\"demo\");";
        project.script(&format!("{load}{}", questions.replace("SUBJECT", subject))).ok()
    };
    assert!(fresh.lines().count() == 49 && fresh.contains("\"feature_dim\""), "{fresh:.500}");
    assert!(fresh == stored("stored"), "the stored analysis answers otherwise");
    assert!(fresh == stored("stored.activations"), "the stored activations answer otherwise");
}

#[test]
fn what_was_saved_reads_back() {
    let check = r#"
        let stored = load_results(path);
        print(stored.found == found);
        print(stored.intervals == intervals);
        print(stored.settings.note);
        print(stored.activations.to_json() == acts.to_json() || stored.activations.mean_nll == acts.mean_nll);
        print(stored.activations.measurements.bytes_read == acts.measurements.bytes_read);
        print(stored.activations.measurements.completion_time.len());
        print(stored.path);
    "#;
    let text = project().script(&format!("{}{check}", ANALYSIS.replace("$ROWS", "0..2"))).ok();
    assert_eq!(text, "true\ntrue\na test\ntrue\ntrue\n20\nresults/demo\n");
}

/// Replaces what a run measured of itself.
fn without_measurements(project: &Project, name: &str) -> Vec<u8> {
    let data = project.bytes(name);
    if !name.ends_with(FINAL) {
        return data;
    }
    let mut json: Value = serde_json::from_slice(&data).unwrap();
    let removed = json.as_object_mut().unwrap().remove("measurements").unwrap();
    // All that differs stands in the text of that object: the rest of the bytes is compared as written.
    let text = String::from_utf8(data).unwrap();
    let at = text.find("\"measurements\": {").unwrap();
    let end = at + text[at..].find('}').unwrap() + 1;
    assert_eq!(serde_json::from_str::<Value>(&format!("{{{}}}", &text[at..end])).unwrap()["measurements"], removed);
    [&text[..at], &text[end..]].concat().into_bytes()
}

#[test]
fn two_runs_give_the_same_bytes() {
    same_bytes(&analysed("0..2"), &analysed("0..2"), 6);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    same_bytes(&analysed_on("1"), &analysed_on("5"), 7);
}

#[track_caller]
fn same_bytes(one: &Project, two: &Project, count: usize) {
    let files = one.files("results");
    assert_eq!(files, two.files("results"));
    assert_eq!(files.len(), count, "{files:?}");
    for name in files {
        let name = format!("results/{name}");
        assert!(without_measurements(one, &name) == without_measurements(two, &name), "{name} differs");
    }
}

#[test]
fn intervals_do_not_depend_on_the_number_of_threads() {
    let project = analysed("0..2");
    project
        .file("script.rhai", "print(load_results(\"demo\").bootstrap_ci(#{ n_resamples: 3000, seed: 11 }).to_json());");
    let with = |threads: &str| {
        let output = project.command(&["run", "script.rhai"]).env("RAYON_NUM_THREADS", threads).output().unwrap();
        Outcome::of(output).json()
    };
    let one = with("1");
    assert!(one["features"].as_array().is_some_and(|features| !features.is_empty()), "{one}");
    assert_eq!(one, with("2"));
    assert_eq!(one, with("5"));
}
