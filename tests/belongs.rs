//! Tests that findings, intervals and activations that do not belong together are not saved, and
//! that a stored analysis that was changed is not used.

use serde_json::{Value, json};

use crate::project::{FINAL, Project};

const SCRIPT: i32 = 1;
const RESULT: &str = "results/demo/final_analysis_results.json";

/// `acts`, and `other` of the same model and other tokens.
const ACTS: &str = r#"
let model = load_model("model");
let all = load_tokens(#{ ids: "model/reference.safetensors" });
let acts = model.extract_layernorms(all);
let other = model.extract_layernorms(load_tokens(#{ ids: all.ids.extract(0..2) }));
let options = #{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, n_resamples: 200 };
let found = acts.detect_outliers(#{ magnitude_threshold: 3.0, min_seq_percentage: 0.01 });
let intervals = acts.bootstrap_ci(options);
"#;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    project
}

#[track_caller]
fn refused(change: &str, message: &str, hint: &str) {
    let save = "save_results(\"demo\", #{ activations: acts, found: found, intervals: intervals });";
    project().refuses(&format!("{ACTS}{change}\n{save}"), SCRIPT, message, hint);
}

#[test]
fn intervals_of_another_criterion_are_not_saved() {
    refused(
        "intervals = acts.bootstrap_ci(#{ n_resamples: 200 });",
        "save_results: `found` and `intervals` are of two criteria: `magnitude_threshold` is 3.0 in `found` and 6.0 in `intervals`",
        "write bootstrap_ci(#{ magnitude_threshold: 3.0, min_seq_percentage: 0.01 })",
    );
    for (option, value) in [
        ("layer_unit", "\"block\""),
        ("skip_positions", "1"),
        ("systematic_layers", "0.5"),
        ("min_layer_percentage", "0.5"),
        ("min_seq_percentage", "0.02"),
        ("magnitude_threshold", "3.5"),
    ] {
        let change = format!("options.{option} = {value}; intervals = acts.bootstrap_ci(options);");
        refused(&change, &format!("`{option}` is "), "bootstrap_ci(#{ ");
    }
    refused(
        "found = acts.detect_outliers(#{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, scope: \"per_sequence\" });",
        "`scope` is \"per_sequence\" in `found` and \"pooled\" in `intervals`",
        "save pooled findings, or leave `intervals` out",
    );
    refused(
        "found = acts.detect_outliers(#{ magnitude_threshold: 3.2, min_seq_percentage: 0.01 });",
        "`magnitude_threshold` is 3.2",
        "extract with `thresholds: [3.2]`",
    );
}

#[test]
fn findings_of_other_activations_are_not_saved() {
    let hint = "pass what detect_outliers of the same activations has returned, unchanged";
    let change = "found = other.detect_outliers(#{ magnitude_threshold: 3.0, min_seq_percentage: 0.01 });";
    refused(change, "save_results: `found` is not what these activations give: its ", hint);
    let change = "intervals = other.bootstrap_ci(options);";
    refused(
        change,
        "`intervals` is not what these activations give: its ",
        "what bootstrap_ci of the same activations",
    );
}

#[test]
fn findings_that_a_script_has_changed_are_not_saved() {
    for (change, path) in [
        ("found.num_features = 99;", "`num_features` is 99, and they give "),
        ("found.classification = \"NONE\";", "`classification` is \"NONE\", and they give "),
        ("found.features[0].feature_dim = 31;", "`features[0].feature_dim` is 31, and they give "),
        ("found.features.pop();", "`features` is a list of "),
        ("found.layer_stats[0].num_outliers += 1;", "`layer_stats[0].num_outliers` is "),
        ("intervals.num_features.low = 0.5;", "`num_features.low` is 0.5, and they give "),
        ("intervals.classification_held = 0.123;", "`classification_held` is 0.123, and they give "),
        ("intervals.features[0].layer_percentage.high = 0.999;", "`features[0].layer_percentage.high` is 0.999"),
    ] {
        // What was found is read only, and a map of it is not.
        refused(&format!("found = found + #{{}}; intervals = intervals + #{{}}; {change}"), path, "unchanged");
    }
}

#[test]
fn what_belongs_together_is_saved_and_loads_without_a_word() {
    let project = project();
    let save = "save_results(\"demo\", #{ activations: acts, found: found, intervals: intervals });
                let stored = load_results(\"demo\");
                save_results(\"again\", #{ activations: stored.activations, found: stored.found, intervals: stored.intervals });
                found = stored.detect_outliers(#{ magnitude_threshold: 4.2 });
                save_results(\"between\", #{ activations: stored.activations, found: found });
                found = stored.detect_outliers(#{ scope: \"per_sequence\", magnitude_threshold: 3.0 });
                save_results(\"each\", #{ activations: stored.activations, found: found });
                for name in list_results() { load_results(name); }";
    let outcome = project.script(&format!("{ACTS}{save}")).ends(0);
    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
    // A reformatted file says the same.
    let text = serde_json::to_string(&project.json(RESULT)).unwrap();
    let outcome = project.file(RESULT, text).script("load_results(\"demo\");").ends(0);
    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
}

/// The project with a stored analysis, and what loading it prints of found and intervals.
fn stored() -> (Project, String) {
    let project = project();
    let save = "save_results(\"demo\", #{ activations: acts, found: found, intervals: intervals });";
    project.script(&format!("{ACTS}{save}")).ok();
    let whole = project.script(SHOW).ok();
    (project, whole)
}

const SHOW: &str = "let s = load_results(\"demo\"); print(s.found.to_json()); print(s.intervals.to_json());";

#[test]
fn answers_that_were_edited_in_their_file_are_not_believed() {
    let (project, whole) = stored();
    let json = project.json(RESULT);
    let edits: [fn(&mut Value); 6] = [
        |json| json["pooled"]["num_features"] = 7.into(),
        |json| json["pooled"]["classification"] = "NONE".into(),
        |json| json["pooled"]["features"][0]["layer_percentage"] = 0.123.into(),
        |json| json["intervals"]["num_features"]["low"] = 1.5.into(),
        |json| json["intervals"]["classification_held"] = 0.59.into(),
        |json| json["intervals"]["criterion"]["magnitude_threshold"] = 6.0.into(),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let mut edited = json.clone();
        edit(&mut edited);
        project.file(RESULT, edited.to_string());
        let outcome = project.script(SHOW).ends(0);
        assert_eq!(outcome.stdout, whole, "edit {i}");
        let told = format!("warning: {RESULT}: it was changed after it was saved: ");
        assert_eq!(outcome.stderr.matches(&told).count(), 1, "edit {i}: {}", outcome.stderr);
        let outcome = project.run(&["rethreshold", "results/demo"]).ends(0);
        assert!(outcome.stderr.contains(&told), "edit {i}: {}", outcome.stderr);
    }
}

#[test]
fn a_criterion_that_was_edited_gives_what_the_record_gives_for_it() {
    let (project, _) = stored();
    let mut json = project.json(RESULT);
    json["pooled"]["criterion"]["magnitude_threshold"] = 6.0.into();
    project.file(RESULT, json.to_string());
    let show = "let s = load_results(\"demo\");
                print(s.found.to_json() == s.detect_outliers(s.found.criterion).to_json());
                print(s.intervals.criterion.magnitude_threshold);";
    assert_eq!(project.script(show).ok(), "true\n6.0\n");
    json["pooled"]["criterion"]["skip_positions"] = 5.into();
    project.file(RESULT, json.to_string());
    project.script("load_results(\"demo\");").ends(3);
}

#[test]
fn results_of_programs_without_a_seal_still_load() {
    let (project, whole) = stored();
    let mut json = project.json(RESULT);
    assert!(json["record"].as_object_mut().unwrap().remove("answers_sha256").is_some());
    project.file(RESULT, json.to_string());
    let outcome = project.script(SHOW).ends(0);
    assert!(outcome.stdout == whole && !outcome.stderr.contains("warning"), "{}", outcome.stderr);
    // What they let through, intervals of another criterion, is told, and those of the findings are given.
    json["intervals"]["criterion"]["magnitude_threshold"] = json!(6.0);
    json["intervals"]["num_features"] = json!({ "value": 0.0, "low": 0.0, "high": 0.0, "method": "percentile" });
    project.file(RESULT, json.to_string());
    let outcome = project.script(SHOW).ends(0);
    assert_eq!(outcome.stdout, whole);
    assert!(outcome.stderr.contains("its intervals are of another criterion"), "{}", outcome.stderr);
    assert!(project.has(&format!("results/demo/{FINAL}")));
}

#[test]
fn a_threshold_between_rungs_is_shown_as_a_range() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model").copy("scripts/analyze.rhai", "analyze.rhai");
    let save =
        "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: \"model/reference.safetensors\" }));
                let found = acts.detect_outliers(#{ magnitude_threshold: 2.5 });
                print(`${found.certain.num_features} to ${found.bracket.num_features_high}`);
                save_results(\"demo\", #{ activations: acts, found: found });";
    let range = project.script(save).ok();
    let table = project.run(&["run", "analyze.rhai"]).ok();
    assert!(range != "8 to 8\n" && table.contains(range.trim()), "{range}{table}");
    let row = &project.json("results/summary.json")["models"][0];
    assert_eq!(row["answer"], "bracketed");
    assert_eq!(format!("{} to {}\n", row["features"], row["features_most"]), range);
}

#[test]
fn an_index_gives_no_number_that_is_only_a_bound() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let script = r#"
        let model = load_model("model");
        let tokens = load_tokens(#{ ids: "model/reference.safetensors" });
        let acts = model.extract_layernorms(tokens);
        let index = acts.threshold_index();
        for threshold in [3.2, 2.0, 2.5] {
            for question in [|| index.count_features(threshold, 0.25, 0.06), || index.feature_dims(threshold, 0.25, 0.06)] {
                try { print(question.call()); } catch (error) { print(`${error.message}; ${error.hint}`); }
            }
        }
        // Where both bounds agree there is a number: nothing reaches so far, and a share of 0 asks for no positions.
        print(index.count_features(700.5, 0.25, 0.06));
        print(index.feature_dims(3.2, 0.25, 0.0).len() == acts.detect_outliers(#{ magnitude_threshold: 3.2, min_seq_percentage: 0.0 }).num_features);
        // Where they are rungs as well, the one of detect_outliers.
        acts = model.extract_layernorms(tokens, #{ thresholds: [3.2, 2.0, 2.5] });
        index = acts.threshold_index();
        for threshold in [3.2, 2.0, 2.5] {
            print(index.count_features(threshold, 0.25, 0.06) == acts.detect_outliers(#{ magnitude_threshold: threshold }).num_features);
        }
    "#;
    let answers = project.script(script).ok();
    let lines: Vec<&str> = answers.lines().collect();
    for (pair, (threshold, place)) in lines.chunks(2).zip([
        ("3.2", "between the rungs 3.0 and 3.5 of this record: "),
        ("2.0", "below the lowest rung, 3.0, of this record: "),
        ("2.5", "below the lowest rung, 3.0, of this record: "),
    ]) {
        for line in pair {
            let message = format!("`magnitude_threshold` {threshold} lies {place}");
            let hint = format!("extract again with `thresholds: [{threshold}]`");
            assert!(line.contains(&message) && line.contains(" may; ") && line.contains(&hint), "{line}");
        }
    }
    assert_eq!(lines[6..], ["0", "true", "true", "true", "true"], "{answers}");
}
