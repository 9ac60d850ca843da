//! Tests of another criterion on a stored record: it gives the answer of a fresh run, exactly or
//! within bounds, from a script and from the command line.

use std::collections::BTreeSet;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::project::Project;

const SETTINGS: usize = 50;
const RUNGS: [f64; 8] = [3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0, 12.0];

/// A project with `results/demo`, of three sequences.
fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    let save = r#"
        let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: "model/reference.safetensors" }), #{ logits: true });
        save_results("demo", #{ activations: acts, found: acts.detect_outliers(), intervals: acts.bootstrap_ci(#{ n_resamples: 50 }) });
    "#;
    project.script(save).ok();
    project
}

/// A random criterion as an option map; half of the thresholds are rungs.
fn random_setting(random: &mut ChaCha8Rng) -> (f64, String) {
    let threshold = match random.random() {
        true => *RUNGS.choose(random).unwrap(),
        // Beyond the ladder at either end as well.
        false => f64::from((random.random_range(1.0..16.0f64) * 100.0).round() as i32) / 100.0,
    };
    let options = format!(
        "#{{ magnitude_threshold: {threshold:?}, min_layer_percentage: {:?}, min_seq_percentage: {:?}, layer_unit: {:?}, \
         scope: {:?}, skip_positions: {}, systematic_layers: {:?} }}",
        [0.0, 0.1, 0.25, 0.5, 0.75].choose(random).unwrap(),
        [0.0, 0.02, 0.06, 0.2, 0.5].choose(random).unwrap(),
        ["norm", "block"].choose(random).unwrap(),
        ["pooled", "per_sequence"].choose(random).unwrap(),
        random.random_range(0..2),
        [0.5, 0.9].choose(random).unwrap(),
    );
    (threshold, options)
}

/// (feature, sequence) of features in a list.
fn named(list: &Value) -> BTreeSet<(u64, Option<u64>)> {
    let features = list.as_array().map(Vec::as_slice).unwrap_or_default();
    features.iter().map(|f| (f["feature_dim"].as_u64().unwrap(), f["sequence"].as_u64())).collect()
}

#[test]
fn a_stored_record_answers_as_a_fresh_run_would() {
    let project = project();
    let mut random = ChaCha8Rng::seed_from_u64(50);
    let settings: Vec<(f64, String)> = (0..SETTINGS).map(|_| random_setting(&mut random)).collect();
    let mut script = String::from(
        "let stored = load_results(\"demo\"); let model = load_model(\"model\");
         let tokens = load_tokens(#{ ids: \"model/reference.safetensors\" });\n",
    );
    for (threshold, options) in &settings {
        script += &format!(
            "print(stored.detect_outliers({options}).to_json());
             print(model.extract_layernorms(tokens, #{{ thresholds: [{threshold:?}] }}).detect_outliers({options}).to_json());\n"
        );
    }
    let text = project.script(&script).ok();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2 * SETTINGS);
    let (mut exact, mut bracketed, mut open) = (0, 0, 0);
    for ((threshold, options), pair) in settings.iter().zip(answers.chunks(2)) {
        let (stored, fresh) = (&pair[0], &pair[1]);
        assert_eq!(fresh["answer"], "exact");
        if stored["answer"] == "exact" {
            exact += 1;
            assert_eq!(stored, fresh, "{options}");
            continue;
        }
        bracketed += 1;
        assert!(!RUNGS.contains(threshold));
        let (certain, passing) = (named(&stored["features"]), named(&fresh["features"]));
        let possible = named(&stored["bracket"]["possible_features"]);
        assert!(certain.is_subset(&passing), "{options}: {certain:?} of {passing:?}");
        let all: BTreeSet<_> = certain.union(&possible).copied().collect();
        assert!(passing.is_subset(&all), "{options}: {passing:?} of {all:?}");
        open += usize::from(!possible.is_empty());
        for exactly in ["max_magnitude", "num_features_hit", "num_positions", "num_norms"] {
            assert_eq!(stored[exactly], fresh[exactly], "{options}");
        }
        for feature in stored["features"].as_array().unwrap() {
            let same = |f: &&Value| f["feature_dim"] == feature["feature_dim"] && f["sequence"] == feature["sequence"];
            let fresh = fresh["features"].as_array().unwrap().iter().find(same).unwrap();
            for exactly in ["layer_percentage", "layer_percentage_blocks", "max_value", "min_value", "layers_affected"]
            {
                assert_eq!(feature[exactly], fresh[exactly], "{options}");
            }
            for at_least in ["seq_positions", "total_occurrences"] {
                assert!(feature[at_least].as_u64() <= fresh[at_least].as_u64(), "{options}: {at_least}");
            }
        }
    }
    assert!(exact > 15 && bracketed > 15 && open > 3, "{exact} exact, {bracketed} bracketed, {open} of those open");
}

#[test]
fn on_the_command_line() {
    let project = project();
    let found = |words: &[&str]| project.run(&[&["rethreshold", "results/demo"][..], words].concat());
    let exact = found(&["--magnitude", "4", "--resamples", "200"]).ok();
    assert!(exact.contains("|x| >= 4, exact: ") && exact.contains("95 % interval over sequences"), "{exact}");
    let between = found(&["--magnitude", "4.2"]).ok();
    assert!(between.contains("bracketed by the rungs 4 and 4.5: "), "{between}");
    assert!(!between.contains("interval"), "{between}");
    // Bounds that are the same number are a number: nothing reaches that far.
    let far = found(&["--magnitude", "1000.5"]).ok();
    assert!(far.contains(": 0 features, NONE"), "{far}");
    let json: Value =
        found(&["--magnitude", "4", "--unit", "block", "--scope", "per-sequence", "--skip-first", "--json"]).json();
    assert_eq!(
        (&json["criterion"]["layer_unit"], &json["criterion"]["scope"]),
        (&"block".into(), &"per_sequence".into())
    );
    assert_eq!(json["criterion"]["skip_positions"], 1);
    let script = r#"print(load_results("demo").detect_outliers(#{ magnitude_threshold: 4.0, layer_unit: "block", scope: "per_sequence", skip_positions: 1 }).to_json())"#;
    assert_eq!(json, project.script(script).json());
}

/// The command line keeps the stored criterion, a script takes the defaults; which one is used is said.
#[test]
fn the_criterion_that_is_used_is_said() {
    let project = project();
    let save = r#"
        let stored = load_results("demo");
        let found = stored.detect_outliers(#{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, layer_unit: "block" });
        save_results("mine", #{ activations: stored.activations, found: found });
    "#;
    project.script(save).ok();
    let said = project.run(&["rethreshold", "mine", "--magnitude", "4"]).ok();
    let criterion = "#{ magnitude_threshold: 4.0, min_layer_percentage: 0.25, min_seq_percentage: 0.01, layer_unit: \"block\", \
                     scope: \"pooled\", skip_positions: 0, systematic_layers: 0.9 }";
    assert!(said.contains(&format!("criterion, as stored where no option says otherwise: {criterion}")), "{said}");
    // What is said can be pasted into a script.
    let same = format!("print(load_results(\"mine\").detect_outliers({criterion}).to_json());");
    let json: Value = project.run(&["rethreshold", "mine", "--magnitude", "4", "--json"]).json();
    assert_eq!(project.script(&same).json(), json);
    let stored =
        "let s = load_results(\"mine\"); print(s.found.to_json() == s.detect_outliers(s.found.criterion).to_json());";
    assert_eq!(project.script(stored).ok(), "true\n");
}

#[test]
fn bad_questions_are_refused() {
    let project = project();
    for (words, message) in [
        (&["results/nothing"][..], "there are no results \"results/nothing\""),
        (&["demo", "--magnitude", "-1"], "`magnitude_threshold` is -1.0"),
        (&["demo", "--layers", "25"], "`min_layer_percentage` is 25.0, outside 0 to 1"),
    ] {
        let outcome = project.run(&[&["rethreshold"][..], words].concat());
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains("hint: "), "{}", outcome.stderr);
    }
}

#[test]
fn a_sweep_from_a_script_has_a_row_for_every_combination() {
    let script = r#"
        let stored = load_results("demo");
        let rows = stored.sweep_criteria(#{
            magnitude_threshold: [3.0, 4.0, 6.0], min_layer_percentage: [0.1, 0.25], min_seq_percentage: 0.06,
            layer_unit: ["norm", "block"], n_resamples: 100,
        });
        print(rows.len());
        for row in rows {
            let c = row.criterion;
            let found = stored.detect_outliers(#{
                magnitude_threshold: c.magnitude_threshold, min_layer_percentage: c.min_layer_percentage, layer_unit: c.layer_unit,
            });
            if found.num_features.to_float() != row.num_features.value || found.classification != row.classification { print("differs"); }
        }
        print(stored.sequences_needed(#{ magnitude_threshold: 3.0, n_resamples: 50 }).agreement.len());
    "#;
    assert_eq!(project().script(script).ok(), "12\n3\n");
}
