//! Records that are cut and joined, the long table of cells, and tests of pairs: against passes over the same sequences.

use serde_json::{Value, json};

use crate::project::Project;

/// Activations of a fixture over four sequences, with losses.
const ACTS: &str = r#"
let model = load_model("model");
let ids = [];
for s in 0..4 { let row = []; for t in 0..16 { row.push((7 * s + 3 * t) % 200); } ids.push(row); }
let options = #{ thresholds: [2.5], logits: true };
let pass = |ids| model.extract_layernorms(load_tokens(#{ ids: ids }), options);
let acts = pass.call(ids);
let asked = #{ magnitude_threshold: 2.5 };
"#;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/olmoe", "model");
    project
}

fn printed(project: &Project, rest: &str) -> String {
    project.script(&format!("{ACTS}{rest}")).ok()
}

#[test]
fn a_part_answers_as_a_pass_over_its_sequences() {
    let said = printed(
        &project(),
        r#"
        let part = acts.sequences([3, 0]);
        let direct = pass.call([ids[3], ids[0]]);
        print(part.detect_outliers(asked) == direct.detect_outliers(asked));
        print(part.detect_outliers(asked).num_features > 0);
        print(part.bootstrap_ci(asked + #{ n_resamples: 100 }) == direct.bootstrap_ci(asked + #{ n_resamples: 100 }));
        print(part.per_sequence(asked) == direct.per_sequence(asked));
        print(part.mean_nll == direct.mean_nll && part.num_sequences == 2 && part.tokens.num_sequences == 2);
        print(part.tokens.sha256 == "" && part.tokens.parts[0].sha256 == acts.tokens.sha256);
        print(part.tokens.parts[0].sequences == [3, 0] && part.tokens.parts[0].num_sequences == 4);
        print(acts.tokens.parts == [] && part.expert_coverage == [] && acts.expert_coverage != []);
        let other = pass.call([ids[1].map(|id| id + 1), ids[2].map(|id| id + 1)]);
        let joined = acts.sequences([1]).join(other);
        let rows = acts.sequences([1]).per_sequence(asked) + other.per_sequence(asked);
        for s in 0..3 { rows[s].sequence = s; }
        print(joined.per_sequence(asked) == rows && joined.mean_nll == [acts.mean_nll[1]] + other.mean_nll);
        let again = acts.sequences([0, 1]).join(acts.sequences([2, 3]));
        print(again.tokens == acts.tokens && again.detect_outliers(asked) == acts.detect_outliers(asked));
        let half = acts.halves(#{ seed: 5 });
        let both = half[0].tokens.parts[0].sequences + half[1].tokens.parts[0].sequences;
        both.sort();
        print(both == [0, 1, 2, 3] && half[0].num_sequences == 2);
        print(half[0].tokens == acts.halves(#{ seed: 5 })[0].tokens);
        "#,
    );
    assert_eq!(said, "true\n".repeat(12));
}

#[test]
fn a_part_is_saved_loaded_asked_again_and_reported() {
    let project = project();
    let said = printed(
        &project,
        r#"
        let part = acts.sequences([2, 0, 1]);
        let found = part.detect_outliers(asked);
        save_results("part", #{ activations: part, found: found, intervals: part.bootstrap_ci(asked + #{ n_resamples: 50 }) });
        let stored = load_results("part");
        print(stored.found == found && stored.activations.tokens == part.tokens);
        print(stored.detect_outliers(#{ magnitude_threshold: 3.0 }) == part.detect_outliers(#{ magnitude_threshold: 3.0 }));
        print(stored.sequences([1]).tokens.parts[0].sequences == [0]);
        let joined = stored.join(acts.sequences([3]));
        save_results("joined", #{ activations: joined, found: joined.detect_outliers(asked) });
        print(load_results("joined").activations.tokens.parts[0].sequences == [2, 0, 1, 3]);
        print(stored.halves().len() == 2);
        "#,
    );
    assert_eq!(said, "true\n".repeat(5));
    for file in ["config.json", "final_analysis_results.json"] {
        let stored = project.json(&format!("results/part/{file}"));
        let tokens = if file == "config.json" { &stored["tokens"] } else { &stored["provenance"]["tokens"] };
        assert_eq!((&tokens["sha256"], &tokens["num_sequences"]), (&json!(""), &json!(3)), "{file}");
        assert_eq!(tokens["parts"][0]["sequences"], json!([2, 0, 1]), "{file}");
    }
    let again = project.run(&["rethreshold", "results/part", "--json"]).json();
    assert_eq!(
        again["num_features"],
        project.json("results/part/final_analysis_results.json")["pooled"]["num_features"]
    );
    project.copy("scripts/report.rhai", "report.rhai");
    project.run(&["run", "report.rhai"]).ok();
    let files = project.files("results");
    let page = files.iter().find(|file| file.ends_with(".html")).unwrap_or_else(|| panic!("{files:?}"));
    assert!(project.text(&format!("results/{page}")).contains("4 of the 4 of "), "the report names the hash of a part");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let project = project();
    for (call, message, hint) in [
        ("acts.sequences([4])", "sequences: sequence 4: the record has 4 sequences", "numbered from 0"),
        ("acts.sequences([1, 1])", "sequences: sequence 1 is named twice", "name each once"),
        ("acts.sequences([])", "a record of no sequences", "[0, 1, 2]"),
        ("acts.sequences([\"a\"])", "a is not the number of a sequence", "[0, 3, 5]"),
        ("acts.sequences([0]).halves()", "a record of one sequence has no halves", "more sequences"),
        ("acts.join(acts.sequences([2]))", "join: sequence 2 of script is in both records", "skip_sequences"),
        ("acts.join(pass.call([[1, 2, 3]]))", "`sequence_length` is 16 in the first record and 3", "in the same way"),
        (
            "acts.join(model.extract_layernorms(load_tokens(#{ ids: [ids[0].map(|id| id + 1)] })))",
            "the ladder is with [2.5] in the first record",
            "in the same way",
        ),
        (
            "paired_test(acts, acts.sequences([0, 1]), \"num_features\")",
            "the records are not paired: one has 4 sequences, the other 2",
            "group_test",
        ),
        (
            "paired_test(acts.sequences([1]), acts.sequences([0]), \"num_features\", asked)",
            "at place 0, one has sequence 1 of script",
            "group_test",
        ),
        ("paired_test(acts, acts, \"num_feature\")", "\"num_feature\" is no number of a sequence", "num_features"),
        ("paired_test(acts, acts, \"num_features\", #{ magnitude_threshold: 2.6 })", "not in the ladder", "rung"),
        ("acts.per_sequence(#{ magnitude_threshold: 2.6 })", "not in the ladder", "rung"),
        ("acts.detect_outliers(#{ skip_positions: 2 })", "only 0 and 1 are recorded", "0 takes all positions"),
        ("acts.heat_map(#{ skip_positions: 2 })", "only 0 and 1 are recorded", "0 takes all positions"),
        ("acts.cells(#{ magnitude_threshold: 2.5 })", "option `dims` is missing", "outlier doc cells"),
        ("acts.cells(#{ dims: [100000] })", "feature 100000: the model has", "numbered from 0"),
        ("print(\"abc\".layer)", "\"abc\" is not the name of a site", "acts.norms[0]"),
    ] {
        project.refuses(&format!("{ACTS}{call};"), 1, message, hint);
    }
}

#[test]
fn pairs_of_two_records_are_tested() {
    let said = printed(
        &project(),
        r#"
        let other = load_model("model", #{ dtype: "bf16" }).extract_layernorms(load_tokens(#{ ids: ids }), options);
        let values = |acts, name| acts.per_sequence(asked).map(|row| row[name]);
        for name in ["num_features", "max_magnitude", "total_occurrences", "mean_nll"] {
            let lists = paired_test(values.call(acts, name), values.call(other, name), #{ n_resamples: 500 });
            print(paired_test(acts, other, name, asked + #{ n_resamples: 500 }) == lists);
        }
        "#,
    );
    assert_eq!(said, "true\n".repeat(4));
}

#[test]
fn a_site_has_a_layer_and_a_site_wherever_it_is_named() {
    let said = printed(
        &project(),
        r#"
        let norm = acts.norms[3];
        print(`${norm}: ${norm.layer} ${norm.site}`);
        let found = acts.detect_outliers(asked);
        for feature in found.features {
            for norm in feature.layers_affected {
                if `layers.${norm.layer}.${norm.site}` != norm || !acts.norms.contains(norm) { throw norm; }
            }
        }
        for i in 0..acts.norms.len() {
            let row = found.layer_stats[i].norm;
            if row.layer != acts.norms[i].layer || row.site != acts.norms[i].site { throw `${i}`; }
        }
        print(acts.heat_map().norms[2].layer);
        "#,
    );
    assert_eq!(said, "layers.1.post_attention_layernorm: 1 post_attention_layernorm\n1\n");
}

#[test]
fn cells_add_up_to_what_was_found() {
    let said = printed(
        &project(),
        r#"
        let found = acts.detect_outliers(asked);
        let dims = found.features.map(|f| f.feature_dim);
        let pooled = acts.cells(asked + #{ dims: dims });
        let each = acts.cells(asked + #{ dims: dims, by: "sequence" });
        print(pooled.len() == dims.len() * acts.norms.len() && each.len() == 4 * pooled.len());
        for feature in found.features {
            let own = |rows| rows.filter(|row| row.feature_dim == feature.feature_dim);
            for rows in [own.call(pooled), own.call(each)] {
                let hits = rows.map(|row| row.hits).reduce(|sum, n| sum + n, 0);
                let largest = rows.map(|row| max(row.max_value, -row.min_value)).reduce(|a, b| max(a, b), 0.0);
                if hits != feature.total_occurrences || largest != feature.max_magnitude { throw feature.feature_dim; }
            }
            let affected = own.call(pooled).filter(|row| row.hits > 0).map(|row| `layers.${row.layer}.${row.site}`);
            if affected != feature.layers_affected { throw feature.feature_dim; }
        }
        print(each[0].to_json());
        print(write_table("results/cells.csv", each));
        print("sequence" in pooled[0]);
        print(acts.cells(#{ dims: 3 })[0].share);
        "#,
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3], lines[4]), ("true", "results/cells.csv", "false", "0.0"), "{said}");
    let row: Value = serde_json::from_str(lines[1]).unwrap();
    let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["feature_dim", "hits", "layer", "max_value", "min_value", "sequence", "share", "site"]);
}

#[test]
fn files_of_the_project_are_read_back_and_no_others() {
    let project = Project::new();
    project.file("notes.txt", "\u{feff}own notes\n").file("results/bad.json", "{\"a\": 1,").file(".env", "SECRET=1");
    project.file("results/gpus.sqlite", "x").file("results/bytes.txt", [0xff, 0xfe, 0x00]);
    let script = r##"
        let value = #{ name: "a", list: [1, 2.5, ()], inner: #{ yes: true } };
        print(read_json(write_json("results/value.json", value)) == value);
        print(read_text(write_text("results/deep/note.md", "# Notes\n")) == "# Notes\n");
        print(read_text("notes.txt") == "own notes\n");
        for path in ["results/bad.json", "results/none.json", ".env", "results/gpus.sqlite", "results/bytes.txt", "results",
                     "/etc/hostname", "../x"] {
            try { read_json(path); print("read"); } catch (e) { print(`${e.kind}: ${e.message}`); }
        }
    "##;
    let said = project.script(script).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["true"; 3], "{said}");
    for (line, begins) in lines[3..].iter().zip([
        "corrupt: read_json: results/bad.json: ",
        "not_found: reading results/none.json",
        "bad_argument: read_json: \".env\" has a name that secrets have",
        "bad_argument: read_json: \"results/gpus.sqlite\" is the program's list",
        "corrupt: read_json: results/bytes.txt: byte 0 is not UTF-8",
        "io: reading results",
        "bad_argument: read_json: \"/etc/hostname\" is outside of the project",
        "bad_argument: read_json: \"../x\" is outside of the project",
    ]) {
        assert!(line.starts_with(begins), "{line}\nexpected {begins}");
    }
    let planned = r#"write_json("results/later.json", #{ a: 1 }); print(read_json("results/later.json")); read_text("nowhere.txt");"#;
    let plan = project.file("plan.rhai", planned).run(&["plan", "plan.rhai"]);
    assert!(plan.stdout.contains("results/later.json: it is written by this script"), "{}{}", plan.stdout, plan.stderr);
    assert!(plan.stderr.contains("nowhere.txt"), "{}{}", plan.stdout, plan.stderr);
}
