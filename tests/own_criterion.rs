//! A criterion that is a function of the script (`where`), and answers between two rungs, which cannot be taken for exact ones.

use crate::project::Project;

/// Activations of a fixture over four sequences.
const ACTS: &str = r#"
let model = load_model("model");
let ids = [];
for s in 0..4 { let row = []; for t in 0..16 { row.push((7 * s + 3 * t) % 200); } ids.push(row); }
let acts = model.extract_layernorms(load_tokens(#{ ids: ids }), #{ thresholds: [2.5] });
"#;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/olmoe", "model");
    project
}

fn printed(rest: &str) -> String {
    project().script(&format!("{ACTS}{rest}")).ok()
}

const OPTIONS: &str = r#"
let least = 0.1;
let limits = #{ magnitude_threshold: 2.5, min_layer_percentage: 0.3, min_seq_percentage: 0.1 };
let own = #{ magnitude_threshold: 2.5, where: |f| f.layer_share >= 0.3 && f.seq_share >= least };
let few = #{ n_resamples: 200 };
"#;

#[test]
fn a_function_takes_the_place_of_the_limits_everywhere() {
    let rest = r#"
        let found = acts.detect_outliers(own);
        let usual = acts.detect_outliers(limits);
        print(found.features == usual.features && found.num_features > 1 && found.classification == usual.classification);
        print(`${found.criterion["where"]}: ${found.criterion.min_layer_percentage}`);
        let a = acts.bootstrap_ci(own + few);
        let b = acts.bootstrap_ci(limits + few);
        print(a.features == b.features && a.num_features == b.num_features && a.max_magnitude == b.max_magnitude);
        let a = acts.sequences_needed(own + few);
        let b = acts.sequences_needed(limits + few);
        print(a.agreement == b.agreement && a.sufficient_for_features == b.sufficient_for_features && a.decides == ());
        print(b.agreement.all(|size| size.same_features <= 1.0) && b.agreement[3].same_features == 1.0);
        let a = acts.sweep_criteria(own + few + #{ magnitude_threshold: [2.5, 3.0], layer_unit: ["norm", "block"] });
        let b = acts.sweep_criteria(limits + few + #{ magnitude_threshold: [2.5, 3.0], layer_unit: ["norm", "block"] });
        print(a.len() == 4 && a.map(|row| row.num_features) == b.map(|row| row.num_features));
        let each = #{ scope: "per_sequence", skip_positions: 1, layer_unit: "block" };
        print(acts.detect_outliers(own + each).features == acts.detect_outliers(limits + each).features);
        print(acts.sequences([1, 2]).detect_outliers(own).num_features >= 0);
        print(acts.detect_outliers(#{ magnitude_threshold: 2.5, where: |f| f.max > 1000.0 }));
    "#;
    let said = printed(&format!("{OPTIONS}{rest}"));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[1], "a function of the script: 0.0", "{said}");
    let others = [&lines[..1], &lines[2..lines.len() - 1]].concat();
    assert_eq!(others, vec!["true"; 7], "{said}");
    let sentence = "no outlier feature (NONE): |x| ≥ 2.5 and a function of the script, over 6 norms and 64 positions; ";
    assert!(lines.last().unwrap().starts_with(sentence), "{said}");
}

#[test]
fn a_function_sees_what_a_feature_is() {
    let rest = r#"
        let seen = [];
        let found = acts.detect_outliers(#{ magnitude_threshold: 2.5, where: |f| { seen.push(f); true } });
        let all = acts.detect_outliers(#{ magnitude_threshold: 2.5, min_layer_percentage: 0.0, min_seq_percentage: 0.0 });
        print(found.features == all.features && seen.len() == all.num_features);
        for f in seen {
            let feature = all.features.find(|other| other.feature_dim == f.feature_dim);
            assert_eq!([f.layer_share, f.layers_hit, f.num_layers], [feature.layer_percentage, feature.norms_hit, 6]);
            assert_eq!([f.seq_share, f.positions_hit, f.num_positions], [feature.seq_percentage, feature.seq_positions, 64]);
            assert_eq!([f.max, f.max_value, f.min_value], [feature.max_magnitude, feature.max_value, feature.min_value]);
        }
        print(seen[0].to_json());
    "#;
    let said = printed(rest);
    assert!(said.starts_with("true\n{\"feature_dim\":"), "{said}");
}

#[test]
fn an_error_in_the_function_is_told_with_its_place() {
    let project = project();
    let refused = |call: &str| project.script(&format!("{ACTS}{OPTIONS}\n{call}")).ends(1).stderr;
    for call in ["detect_outliers(o)", "bootstrap_ci(o + few)", "sequences_needed(o + few)", "sweep_criteria(o + few)"]
    {
        let told =
            refused(&format!("let o = #{{ magnitude_threshold: 2.5, where: |f| f.layer_shar > 0.2 }}; acts.{call};"));
        assert!(told.contains("candidate has no field `layer_shar`") && told.contains("layer_share"), "{call}: {told}");
        assert!(told.contains(" | let o = #{ magnitude_threshold: 2.5, where: |f| f.layer_shar"), "{call}: {told}");
        let told = refused(&format!("let o = #{{ magnitude_threshold: 2.5, where: |f| f.max }}; acts.{call};"));
        assert!(told.contains("where: the function gave") && told.contains("expected true or false"), "{call}: {told}");
        let told = refused(&format!(
            "let o = #{{ magnitude_threshold: 2.5, where: |f| throw #{{ kind: \"mine\", message: \"boom\" }} }};
             try {{ acts.{call}; }} catch (e) {{ if e.kind == \"mine\" {{ throw `caught ${{e.message}}`; }} }}"
        ));
        assert!(told.contains("caught boom"), "{call}: {told}");
    }
}

#[test]
fn what_a_function_cannot_go_with_is_refused() {
    let project = project();
    for (call, message, hint) in [
        (
            "acts.detect_outliers(own + limits)",
            "give `where` or `min_layer_percentage`, not both",
            "f.layer_share >= 0.25",
        ),
        (
            "acts.sweep_criteria(own + #{ min_seq_percentage: [0.1, 0.2] })",
            "give `where` or `min_seq_percentage`, not both",
            "f.layer_share",
        ),
        (
            "acts.detect_outliers(#{ where: \"f.max > 8\" })",
            "expected a function, such as |f| f.max > 8.0",
            "outlier doc",
        ),
        ("acts.detect_outliers(acts.detect_outliers(own).criterion)", "`where` is \"a function of the script\"", ""),
        ("acts.detect_outliers(own + #{ magnitude_threshold: 2.6 })", "not in the ladder", "rung"),
        ("acts.per_sequence(own)", "unknown option `where`", ""),
        (
            "acts.detect_outliers(limits + #{ where_name: \"mine\" })",
            "`where_name` goes with `where`",
            "the name of the function",
        ),
        ("acts.detect_outliers(own + #{ where_name: \" \" })", "`where_name` is \"\"", "1 to 60 characters"),
        (
            "save_results(\"own\", #{ activations: acts, found: acts.detect_outliers(own), intervals: acts.bootstrap_ci(limits) })",
            "are of two criteria",
            "",
        ),
    ] {
        project.refuses(&format!("{ACTS}{OPTIONS}{call};"), 1, message, hint);
    }
}

/// Saves what a function has found, with intervals.
const SAVED: &str = r#"
let spikes = #{ magnitude_threshold: 2.5, where: |f| f.layer_share >= 0.3 && f.feature_dim % 2 == 0, where_name: "even ones" };
let found = acts.detect_outliers(spikes);
let intervals = acts.bootstrap_ci(spikes + #{ n_resamples: 200 });
save_results("own", #{ activations: acts, found: found, intervals: intervals });
"#;

#[test]
fn what_a_function_has_found_is_saved_with_its_words_and_never_found_again_by_the_limits() {
    let project = project();
    let rest = r#"
        let stored = load_results("own");
        print(found.num_features > 0 && found.num_features < acts.detect_outliers(#{ magnitude_threshold: 2.5 }).num_features_hit);
        print(stored.found == found && stored.intervals == intervals);
        print(stored.found.criterion["where"]);
        import "answers" as answers;
        print(answers::sentence("m", stored.found, stored.intervals, stored.activations));
        print(export_tables(stored, "csv").len() > 3);
        let rows = read_text("results/own/tables/features_per_sequence.csv").split("\n");
        let dims = found.features.map(|feature| `${feature.feature_dim}`);
        print(rows.len() > 2 && rows.filter(|row| row.contains(",")).len() > 1);
    "#;
    let said = project.script(&format!("{ACTS}{SAVED}{rest}")).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["true", "true", "even ones (a function of the script)"], "{said}");
    assert!(lines[3].contains("at |x| ≥ 2.5 and even ones (a function of the script), of"), "{said}");
    assert!(!said.contains("25 %"), "{said}");
    assert_eq!(lines[4..], ["true"; 2], "{said}");
    // The commands show the words, too, and do not take the limits of 0 that stand beside them.
    for script in ["report", "analyze", "plots"] {
        project.copy(&format!("scripts/{script}.rhai"), &format!("{script}.rhai"));
        project.run(&["run", &format!("{script}.rhai")]).ok();
    }
    let page = String::from_utf8(project.bytes("results/report.md")).unwrap();
    assert!(page.contains("and even ones (a function of the script)"), "{page}");
    let asked = project.run(&["rethreshold", "results/own", "--magnitude", "3"]);
    assert!(asked.stderr.contains("functions are not stored"), "{}", asked.stderr);
    let limits = ["rethreshold", "results/own", "--magnitude", "3", "--layers", "0.25", "--positions", "0.06"];
    assert!(project.run(&limits).ok().contains("min_layer_percentage: 0.25"));
}

#[test]
fn changed_findings_of_a_function_are_told() {
    let project = project();
    project.script(&format!("{ACTS}{SAVED}")).ok();
    let file = "results/own/final_analysis_results.json";
    let saved = String::from_utf8(project.bytes(file)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let first = json["pooled"]["features"][0].clone();
    let read = "let stored = load_results(\"own\"); print(stored.found.features[0].total_occurrences); print(stored.intervals == ());";
    let mut changed = json.clone();
    changed["pooled"]["features"][0]["total_occurrences"] = 1_000_000.into();
    project.file(file, serde_json::to_vec(&changed).unwrap());
    let outcome = project.script(read);
    assert!(outcome.stderr.contains("total_occurrences"), "{}", outcome.stderr);
    assert_eq!(outcome.ok(), format!("{}\ntrue\n", first["total_occurrences"]));
    // One feature fewer is sound by the record, and not what was saved.
    let mut fewer = json.clone();
    fewer["pooled"]["features"].as_array_mut().unwrap().pop();
    fewer["pooled"]["num_features"] = (json["pooled"]["num_features"].as_u64().unwrap() - 1).into();
    project.file(file, serde_json::to_vec(&fewer).unwrap());
    let outcome = project.script(read);
    assert!(outcome.stderr.contains("is not what was saved"), "{}", outcome.stderr);
    assert!(outcome.ok().ends_with("true\n"));
}

#[test]
fn the_least_that_can_pass_was_read_as_the_answer() {
    let project = project();
    project.file("record.rhai", format!("{ACTS}save_results(\"demo\", #{{ activations: acts, found: acts.detect_outliers(#{{ magnitude_threshold: 2.5 }}) }});"));
    project.run(&["run", "record.rhai"]).ok();
    // The first threshold between two rungs that leaves open which features pass, and one that does not.
    let open = r#"
        let stored = load_results("demo");
        let open = ();
        for step in 1..50 {
            let found = stored.detect_outliers(#{ magnitude_threshold: 2.5 + 0.01 * step, min_layer_percentage: 0.0 });
            if found.answer == "bracketed" && found.bracket.num_features_high > found.certain.num_features { open = found; }
        }
    "#;
    let rest = r#"
        print(open.certain.num_features < open.bracket.num_features_high && open.certain.features.len() == open.certain.num_features);
        for name in ["num_features", "features", "classification"] {
            try { print(open[name]); } catch (e) { print(`${e.kind}: ${e.message} (${e.hint})`); }
            try { print(open.get(name)); } catch (e) { print(e.kind); }
        }
        print(open.max_magnitude > 0.0 && parse_json(open.to_json()).num_features == open.certain.num_features);
        save_results("open", #{ activations: stored.activations, found: open });
        let exact = stored.detect_outliers(#{ magnitude_threshold: 2.5 });
        print(exact.certain.num_features == exact.num_features && exact.certain.features == exact.features);
        let nothing = stored.detect_outliers(#{ magnitude_threshold: 1000000.0 });
        print(`${nothing.answer} ${nothing.num_features} ${nothing.classification}`);
        import "answers" as answers;
        print(answers::sentence("m", open, (), stored.activations));
        print(answers::over_thresholds(stored.activations, [open.criterion.magnitude_threshold])[0].features);
        print(`${open}`);
    "#;
    let said = project.script(&format!("{open}{rest}")).ok();
    let lines: Vec<&str> = said.lines().collect();
    for (line, name) in [(1, "num_features"), (3, "features"), (5, "classification")] {
        assert!(lines[line].starts_with(&format!("bad_argument: `{name}` is not known")), "{said}");
        assert!(lines[line].contains("between the rungs 2.5 and 3.0") && lines[line].contains("can pass"), "{said}");
        assert!(lines[line].contains(&format!("found.certain.{name}")), "{said}");
        assert_eq!(lines[line + 1], "bad_argument", "{said}");
    }
    assert_eq!([lines[0], lines[7], lines[8], lines[9]], ["true", "true", "true", "bracketed 0 NONE"], "{said}");
    assert!(lines[10].contains("at most"), "{said}");
    assert!(lines[12].contains("at least") && lines[12].contains("at most"), "{said}");
    project.copy("scripts/report.rhai", "report.rhai").copy("scripts/analyze.rhai", "analyze.rhai");
    project.run(&["run", "report.rhai"]).ok();
    project.run(&["run", "analyze.rhai"]).ok();
}
