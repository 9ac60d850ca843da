//! Fields of records are known before a script runs: to `outlier doc` and to `outlier check`.

use crate::project::Project;

const ACTS: &str = r#"
let model = load_model("model");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract_layernorms(tokens, #{ logits: true });
let found = acts.detect_outliers(#{ magnitude_threshold: 3.0 });
"#;

fn checked(rest: &str) -> (i32, String) {
    let outcome = Project::new().file("s.rhai", format!("{ACTS}{rest}")).run(&["check", "s.rhai"]);
    (outcome.code, outcome.stderr)
}

#[test]
fn a_misspelt_field_of_a_record_was_found_only_by_the_run() {
    for (line, said, hint) in [
        ("print(found.num_feature);", "detection has no field `num_feature`", "num_features"),
        ("print(found.features[0].feature_dims);", "feature has no field `feature_dims`", "feature_dim"),
        ("print(found.features[0].sidednes.len());", "feature has no field `sidednes`", "sidedness"),
        ("for f in found.features { print(f.max_magnitud); }", "feature has no field `max_magnitud`", "max_magnitude"),
        ("let c = found.criterion; print(c.layer_units);", "criterion has no field `layer_units`", "layer_unit"),
        ("print(acts.bootstrap_ci().num_features.lowest);", "interval has no field `lowest`", "low"),
        ("print(acts.token.sha256);", "activations has no field `token`", "tokens"),
        ("print(acts.tokens.sha);", "tokens_info has no field `sha`", "sha256"),
        ("print(model.num_layer);", "model has no field `num_layer`", "num_layers"),
        ("print(tokens.id[0]);", "tokens has no field `id`", "ids"),
        ("let rows = acts.cells(#{ dims: [1] }); print(rows[0].dim);", "cell has no field `dim`", "feature_dim"),
        ("print(acts.halves()[1].norm.len());", "activations has no field `norm`", "norms"),
        ("print(load_results(\"x\").founds.features);", "results has no field `founds`", "found"),
        ("print(found.bracket.possible_features[0].dims);", "possible_feature has no field `dims`", ""),
        ("fn f() { let own = load_model(\"m\"); own.hidden }", "model has no field `hidden`", "hidden_size"),
        ("print(`${found.classifications}`);", "detection has no field `classifications`", "classification"),
        ("if acts.sequences_needed().suficient == () { }", "sequences_needed has no field `suficient`", "sufficient"),
    ] {
        let (code, told) = checked(line);
        assert!(code == 1 && told.contains(said) && told.contains(hint), "{line}: {told}");
        assert_eq!(told.matches("has no field").count(), 1, "{line}: {told}");
        assert!(told.contains("s.rhai:"), "{line}: {told}");
    }
}

#[test]
fn what_is_not_known_is_left_to_the_run() {
    for line in [
        "print(found.num_features); print(found.features[0].layers_affected[0].layer); print(found.certain.features.len());",
        "let row = acts.sequences_needed(); row.note = 1; print(row.note);",
        "let row = acts.sequences_needed(); row.set(\"note\", 1); print(row.note);",
        "let row = acts.sequences_needed() + #{ note: 1 }; print(row.note);",
        "let rows = acts.per_sequence().map(|row| row + #{ note: 1 }); print(rows[0].note);",
        "let thing = load_model(\"m\"); thing = #{ own: 1 }; print(thing.own);",
        "let x = load_model(\"m\"); { let x = #{ own: 1 }; print(x.own); }",
        "fn g(found) { found.whatever } print(g(#{ whatever: 1 }));",
        "fn detect_outliers(acts, options, more) { #{ own: 1 } } print(detect_outliers(1, 2, 3).own);",
        "print(found[\"whatever\"]); print(found.get(\"whatever\"));",
        "print(acts.heat_map().values[0][1]); print(acts.norms[0].site); print(acts.measurements.wall_seconds);",
        "try { load_model(\"m\"); } catch (e) { print(e.kind + e.whatever); }",
        "for found2 in [1, 2] { print(found2); } for i in 0..3 { print(found.features[i].quartiles[0]); }",
        "print(acts.sequences([0]).join(acts.sequences([1])).tokens.parts[0].sequences[0]);",
        "let stored = load_results(\"x\"); print(stored.intervals.features[0].passed); print(stored.settings.mine.own);",
    ] {
        let (code, told) = checked(line);
        assert_eq!((code, told.contains("has no field")), (0, false), "{line}: {told}");
    }
}

#[test]
fn the_documentation_lists_the_fields_of_what_is_given() {
    let doc = |name: &str| Project::new().run(&["doc", name]).ok();
    let text = doc("detect_outliers");
    for word in ["Fields of what it gives", "features[]", "seq_percentage", "bracket.possible_features[]", "certain"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(doc("cells").contains("[]") && doc("cells").contains("max_value"));
    assert!(doc("load_model").contains("num_experts_per_tok") && doc("paired_test").contains("effect_size"));
    assert!(!doc("svg").contains("Fields of what it gives"));
}

#[test]
fn the_documented_fields_are_those_of_a_run() {
    let project = Project::new();
    project.copy("tests/fixtures/olmoe", "model");
    let script = r#"
        let rows = #{
            model: model, tokens: tokens, activations: acts, detection: found, feature: found.features[0],
            intervals: acts.bootstrap_ci(#{ n_resamples: 50 }), sequences_needed: acts.sequences_needed(#{ n_resamples: 50 }),
            cell: acts.cells(#{ dims: [1], by: "sequence" })[0], sequence_values: acts.per_sequence()[0],
            perplexity: acts.perplexity(#{ n_resamples: 50 }), heat_map: acts.heat_map(), criterion: found.criterion,
            layer_profile: acts.layer_profile([1])[0], magnitude_bin: acts.magnitude_histogram()[0],
            test_result: paired_test([1.0, 2.0], [2.0, 1.0]), tokens_info: acts.tokens,
            sweep_row: acts.sweep_criteria(#{ n_resamples: 50 })[0], estimate: estimate_vram("model"),
        };
        for key in rows.keys() { rows[key] = parse_json(rows[key].to_json()).keys(); }
        print(rows.to_json());
    "#;
    let acts = ACTS.replace("threshold: 3.0", "threshold: 3.0, min_layer_percentage: 0.0, min_seq_percentage: 0.0");
    let given = project.script(&format!("{acts}{script}")).json();
    let reference = Project::new().run(&["doc", "--markdown"]).ok();
    for (record, keys) in given.as_object().unwrap() {
        let row = reference.lines().find(|line| line.starts_with(&format!("| {record} | `")));
        let row = row.unwrap_or_else(|| panic!("{record} is not in the reference"));
        let documented: Vec<&str> = row.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches("[]")).collect();
        for key in keys.as_array().unwrap() {
            assert!(documented.contains(&key.as_str().unwrap()), "{record}.{key} is not documented: {row}");
        }
        // Fields that are left out where there is nothing to say.
        let optional = ["certain", "bracket", "sequence", "where", "parts", "ids"];
        for name in documented.iter().filter(|name| !optional.contains(name)) {
            assert!(keys.as_array().unwrap().iter().any(|key| key == name), "{record} has no {name}: {keys}");
        }
    }
}
