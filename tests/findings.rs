//! What detect_outliers and bootstrap_ci give to a script: it reads as a map does, says what it is, and is saved as it is.

use crate::project::Project;

/// Activations of a fixture over four sequences, with what was found in them.
const ACTS: &str = r#"
let model = load_model(FIXTURE);
let ids = [];
for s in 0..4 { let row = []; for t in 0..16 { row.push((7 * s + 3 * t) % 200); } ids.push(row); }
let acts = model.extract_layernorms(load_tokens(#{ ids: ids }), #{ thresholds: [2.5] });
let found = acts.detect_outliers(#{ magnitude_threshold: 2.5 });
let ci = acts.bootstrap_ci(#{ magnitude_threshold: 2.5, n_resamples: 200 });
"#;

fn script(rest: &str) -> String {
    let fixture = format!("{:?}", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/olmoe"));
    format!("{}{rest}", ACTS.replace("FIXTURE", &fixture))
}

fn printed(rest: &str) -> String {
    Project::new().script(&script(rest)).ok()
}

#[test]
fn they_read_as_maps_do() {
    let said = printed(
        r#"
        print(found.num_features == found.features.len() && found.features[0].feature_dim >= 0);
        print("features" in found && !("nonsense" in found));
        print(found.keys().len() == found.len() && found.values().len() == found.len());
        let same = true;
        for key in found.keys() { same = same && type_of(key) == "string" && found[key] == found.get(key); }
        print(same);
        print(found.get("num_norms") == found.num_norms && found.get("nonsense") == ());
        print((found + #{ note: 1 }).note == 1 && (found + #{ note: 1 }).num_norms == found.num_norms);
        print(found == acts.detect_outliers(#{ magnitude_threshold: 2.5 }) && found != acts.detect_outliers());
        print(found.bracket == ());
        print(type_of(found) + " " + type_of(ci));
        print(parse_json(found.to_json()).features.len() == found.num_features);
        print(ci.num_features.low <= ci.num_features.high && ci.args.n_resamples == 200);
        print(acts.norms.len() == found.num_norms && acts.tokens.num_sequences == 4);
        let again = acts.detect_outliers(found.criterion);
        print(again == found);
        print(write_json("results/found.json", #{ found: found, all: [ci] }));
        "#,
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[8], "detection intervals", "{said}");
    assert_eq!(lines.last(), Some(&"results/found.json"), "{said}");
    assert!(lines.iter().enumerate().all(|(i, line)| i == 8 || i + 1 == lines.len() || *line == "true"), "{said}");
}

#[test]
fn they_are_saved_as_they_are_and_from_a_map() {
    let said = printed(
        r#"
        save_results("a", #{ activations: acts, found: found, intervals: ci });
        save_results("b", #{ activations: acts, found: parse_json(found.to_json()), intervals: parse_json(ci.to_json()) });
        let a = load_results("a");
        let b = load_results("b");
        print(a.found == found && a.intervals == ci && b.found == found && b.intervals == ci);
        print(type_of(a.found) == "detection" && a.activations.num_sequences == 4);
        "#,
    );
    assert_eq!(said, "true\ntrue\n");
}

#[test]
fn printing_one_says_what_was_found() {
    let said = printed("print(found); print(`${found}`); print(ci); print(acts);");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("outlier feature") && lines[0].contains("|x| ≥ 2.5 in 25 % of"), "{said}");
    assert!(said.contains("feature_dim") && said.contains("% of norms") && said.contains("% of positions"), "{said}");
    // A text in a text is the sentence alone.
    assert_eq!(lines.iter().filter(|line| **line == lines[0]).count(), 2, "{said}");
    let intervals =
        lines.iter().find(|line| line.contains("200 resamples of 4 sequences")).expect("a line of intervals");
    let count = intervals.split(" outlier features").next().unwrap_or_default();
    assert!(count.contains(" [") && count.ends_with(']'), "{said}");
    let acts = lines.last().copied().unwrap_or_default();
    assert!(acts.starts_with("activations of ") && acts.contains("4 × 16 tokens") && acts.contains("norms"), "{said}");
}

#[test]
fn a_field_cannot_be_written_and_a_wrong_name_has_a_hint() {
    for change in [
        "found.num_features = 3;",
        "found.features.sort(|a, b| b.feature_dim - a.feature_dim); found.features.pop();",
        "found.features[0].feature_dim = 1000;",
        "ci.num_features.low = 7.0;",
    ] {
        let ended = Project::new().script(&script(change)).ends(1);
        assert!(ended.stderr.contains("is read, not written"), "{change}: {}", ended.stderr);
    }
    printed("found.features.len(); found.features.filter(|f| true).pop(); let own = found.features; own.pop();");
    let ended = Project::new().script(&script("print(found.num_feature);")).ends(1);
    assert!(ended.stderr.contains("detection has no field `num_feature`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("num_features"), "{}", ended.stderr);
    let ended = Project::new().script(&script("save_results(\"x\", #{ activations: acts, found: 3 });")).ends(1);
    assert!(ended.stderr.contains("`found` is not what detect_outliers returned: it is i64"), "{}", ended.stderr);
}

#[test]
fn a_map_in_place_of_a_detection_says_which_field_is_wrong() {
    for (change, said) in [
        (
            "map.num_features = \"many\";",
            "`found` is not what detect_outliers returned: its `num_features`: invalid type",
        ),
        ("map.features[0].remove(\"feature_dim\");", "its `features`: missing field `feature_dim`"),
        ("map.remove(\"classification\");", "missing field `classification`"),
    ] {
        let rest = format!(
            "let map = parse_json(found.to_json()); {change} save_results(\"x\", #{{ activations: acts, found: map }});"
        );
        let ended = Project::new().script(&script(&rest)).ends(1);
        assert!(ended.stderr.contains(said), "{change}: {}", ended.stderr);
        assert!(ended.stderr.contains("pass it unchanged"), "{change}: {}", ended.stderr);
    }
}

#[test]
fn settings_may_hold_what_was_found() {
    let said = printed(
        r#"
        save_results("a", #{ activations: acts, found: found, settings: #{ other: acts.detect_outliers(), all: [ci] } });
        let settings = load_results("a").settings;
        print(settings.other.num_norms == found.num_norms && settings.all[0].args.n_resamples == 200);
        "#,
    );
    assert_eq!(said, "true\n");
    let ended = Project::new()
        .script(&script("save_results(\"a\", #{ activations: acts, found: found, settings: #{ f: |x| x } });"))
        .ends(1);
    assert!(
        ended.stderr.contains("`settings` is") && ended.stderr.contains("expected plain values"),
        "{}",
        ended.stderr
    );
}

#[test]
fn stored_results_say_what_was_found() {
    let said = printed(
        r#"
        save_results("a", #{ activations: acts, found: found });
        print(load_results("a"));
        print(found);
        "#,
    );
    let (line, found) = said.split_once('\n').unwrap();
    let sentence = found.lines().next().unwrap();
    assert_eq!(line, format!("results/a: {sentence}"), "{said}");
    assert!(sentence.contains("outlier feature"), "{said}");
}

#[test]
fn shares_of_layers_are_not_called_shares_of_norms() {
    let fixture = format!("{:?}", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/olmoe"));
    let said = Project::new()
        .script(&format!(
            r#"
            import "answers" as answers;
            let model = load_model({fixture});
            let ids = [];
            for s in 0..3 {{ let row = []; for t in 0..16 {{ row.push((7 * s + 3 * t) % 200); }} ids.push(row); }}
            let acts = model.extract(load_tokens(#{{ ids: ids }}), #{{ sites: ["resid_post"], thresholds: [2.5] }});
            let stream = acts.at("resid_post");
            for record in [acts, stream] {{
                print(record.bootstrap_ci(#{{ magnitude_threshold: 2.5, min_layer_percentage: 0.0, min_seq_percentage: 0.0, n_resamples: 50 }}));
                let rows = answers::over_thresholds(record, [2.5]);
                print(rows[0].keys().filter(|key| key.contains("largest % of") && !key.contains("positions"))[0]);
                print(answers::threshold_columns(record).contains(rows[0].keys().filter(|key| key.contains("% of") && !key.contains("positions"))[0]));
            }}
            "#
        ))
        .ok();
    let (of_norms, of_layers) = said.split_at(said.find("true").expect("both are printed") + 4);
    assert!(of_norms.contains("% of norms"), "{said}");
    assert!(!of_norms.contains("% of layers"), "{said}");
    assert!(of_norms.contains("largest % of norms"), "{said}");
    assert!(of_layers.contains("% of layers") && of_layers.contains("largest % of layers"), "{said}");
    assert!(!of_layers.contains("of norms") && of_layers.trim_end().ends_with("true"), "{said}");
}

#[test]
fn largest_values_that_attribution_was_not_asked_about_are_counted() {
    let fixture = format!("{:?}", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/olmoe"));
    let said = Project::new()
        .script(&format!(
            r#"
            import "measured" as measured;
            let model = load_model({fixture});
            let ids = [];
            for s in 0..2 {{ let row = []; for t in 0..8 {{ row.push((7 * s + 3 * t) % 200); }} ids.push(row); }}
            let every = []; for position in 0..8 {{ every.push(position); }}
            for observe in [
                #{{ observe: ["top", "attribution"], attributed_positions: [] }},
                #{{ observe: ["top", "attribution"], attributed_positions: every }},
                #{{ observe: ["top"] }},
            ] {{
                let acts = model.extract(load_tokens(#{{ ids: ids }}), #{{ sites: ["resid_post"] }} + observe);
                save_results("m", #{{ activations: acts, found: acts.detect_outliers() }});
                let lines = measured::sentences(load_results("m")).filter(|line| line.contains("was not asked for"));
                print(lines.len());
                for line in lines {{ print(line); }}
            }}
            "#
        ))
        .ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0], &lines[2..]), (4, "1", &["0", "0"][..]), "{said}");
    assert!(lines[1].contains("20 of the 20 largest values of the residual stream are elsewhere"), "{said}");
}
