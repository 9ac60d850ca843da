//! Tests of the scripts about lanes on fixtures, and of how scripts ask for lanes.

use serde_json::Value;

use crate::fake_hub::{Hub, Model};
use crate::project::{Outcome, Project};

/// A project with a script and a fixture as `model/`.
fn project(script: &str, model: &str) -> Project {
    let project = Project::new();
    project.copy(script, script).copy(&format!("tests/fixtures/{model}"), "model");
    project
}

fn words<'a>(script: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["run", script, "--model", "model", "--ids", "model/reference.safetensors"], more].concat()
}

#[test]
fn the_table_of_the_paper_on_several_architectures() {
    let script = "scripts/dettmers_table.rhai";
    for model in ["opt", "gpt2", "gpt_neox"] {
        let project = project(script, model);
        let told = project.run(&words(script, &[])).ends(0).stdout;
        assert!(told.contains("zero random 3") && told.contains("layer by layer"), "{model}: {told}");
        let written = project.json("results/lanes/dettmers_table_model.json");
        let rows = written["comparison"].as_array().unwrap();
        assert_eq!(rows.len(), 5, "{model}");
        // The features that were found, and as many others.
        let dims = |lane: usize| written["lanes"][lane]["changes"][0]["dims"]["given"].as_array().unwrap().clone();
        assert!(!dims(1).is_empty() && dims(1).len() == dims(2).len(), "{model}: {:?}", dims(1));
        assert!(dims(2).iter().all(|dim| !dims(1).contains(dim)), "{model}");
        let ratio = |row: usize| rows[row]["perplexity_ratio"]["value"].as_f64().unwrap();
        assert!((0..5).all(|row| ratio(row) > 0.0 && ratio(row) != 1.0), "{model}: {rows:?}");
        assert!(rows[0]["attention_top1"].is_number(), "{model}");
    }
}

#[test]
fn the_table_of_the_paper_is_the_same_from_the_hub_and_says_which_row_it_repeats() {
    let script = "scripts/dettmers_table.rhai";
    for (model, stream) in [("opt", false), ("gpt2", true), ("gpt_neox", false), ("opt_350m", true)] {
        let project = project(script, model);
        let told = project.run(&words(script, &[])).ends(0).stdout;
        for part in
            ["6.7 billion parameters", "section 4.2", "600 to 1000", "paper: 7 random features", "zero random 1: "]
        {
            assert!(told.contains(part), "{model}: {part} is not in\n{told}");
        }
        let id = format!("lab/{model}");
        let hub = Hub::start().with(&id, Model::Folder(project.path("model")));
        let mut words = vec!["run", script, "--model", &id, "--ids", "model/reference.safetensors"];
        words.extend(stream.then_some("--stream"));
        let mut command = project.command(&words);
        let outcome = Outcome::of(command.env("HF_ENDPOINT", &hub.address).output().unwrap());
        outcome.ends(0);
        let here = project.json("results/lanes/dettmers_table_model.json");
        let there = project.json(&format!("results/lanes/dettmers_table_lab_{model}.json"));
        assert_eq!((&here["lanes"], &here["comparison"]), (&there["lanes"], &there["comparison"]), "{model}");
        assert_eq!(there["model"], id.as_str());
    }
}

#[test]
fn features_in_lanes_of_their_own_and_wrong_ones() {
    let script = "scripts/dettmers_table.rhai";
    let project = project(script, "gpt2");
    let told = project.run(&words(script, &["--dims", "3", "4", "--apart", "5,6", "--controls", "1"])).ends(0).stdout;
    assert!(told.contains("zero: dimensions 3 and 4 of attn_in at 0") && told.contains("zero 6 alone"), "{told}");
    for (more, expected) in [
        (&["--dims", "three"][..], "--dims: three is no whole number"),
        (&["--dims", "3.5"], "--dims: 3.5 is no whole number"),
        (&["--dims", "4000"], "has no dimension 4000"),
        (&["--apart", "4000", "--dims", "1"], "has no dimension 4000"),
        (&["--controls", "70"], "--controls: 70"),
        (&["--magnitude-threshold", "5000"], "no feature passes at 5000"),
        (&["--dim", "3"], "--dim"),
    ] {
        let refused = project.run(&words(script, more)).stderr;
        assert!(refused.contains(expected) && refused.contains("hint: "), "{more:?}: {refused}");
    }
}

#[test]
fn what_formats_would_cost() {
    let script = "scripts/what_if.rhai";
    let project = project(script, "llama");
    let told = project.run(&words(script, &["--formats", "int8", "int4", "nvfp4", "--dims", "5"])).ends(0).stdout;
    for part in ["int8 both, outliers exact", "Signal to noise", "outlier columns exact", "given dimensions exact"] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    let written = project.json("results/lanes/what_if_model.json");
    let kl = |name: &str| -> f64 {
        let rows = written["comparison"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["kl"]["value"].as_f64().unwrap()
    };
    assert!(kl("int8 both, outliers exact") < kl("int8 both") && kl("int8 both") < kl("nvfp4 both"), "{written}");
    assert!(kl("int8 inputs, outliers exact") < kl("int8 inputs") && kl("int8 weights") < kl("int4 weights"));
    // Several words may be one.
    let every = project.run(&words(script, &["--formats", "int8 fp8,mxfp4 nvfp4"])).ends(0).stdout;
    assert!(["fp8 both", "mxfp4 inputs", "nvfp4 both"].iter().all(|name| every.contains(name)), "{every}");
    let refused = project.run(&words(script, &["--formats", "int7"])).stderr;
    assert!(refused.contains("int7 is not known"), "{refused}");
}

#[test]
fn experts_that_are_switched_off() {
    let script = "scripts/super_experts.rhai";
    let mixture = project(script, "olmoe");
    let told = mixture.run(&words(script, &["--experts", "0:3", "2:5", "--controls", "4"])).ends(0).stdout;
    assert!(told.contains("without the named experts") && told.contains("without random ones 4"), "{told}");
    let written = mixture.json("results/lanes/super_experts_model.json");
    assert!(written["comparison"][0]["kl"]["value"].as_f64().unwrap() > 0.0);
    // As many others of the same layers.
    let off = |lane: usize| -> Vec<(u64, u64)> {
        let changes = written["lanes"][lane]["changes"].as_array().unwrap();
        changes.iter().map(|of| (of["layer"].as_u64().unwrap(), of["experts"][0].as_u64().unwrap())).collect()
    };
    assert_eq!(off(1), [(0, 3), (2, 5)]);
    for control in 2..=5 {
        assert_eq!(off(control).iter().map(|of| of.0).collect::<Vec<_>>(), [0, 2]);
        assert!(!off(control).iter().any(|of| off(1).contains(of)), "{written}");
    }
    mixture.run(&words(script, &[])).ends(0);
    for (more, expected) in [
        (&["--experts", "3"][..], "--experts: 3"),
        (&["--experts", "0:x"], "x is no whole number"),
        (&["--experts", "0:800"], "has no expert 0:800"),
        (&["--experts", "90:0"], "has no expert 90:0"),
        (&["--controls", "-1"], "--controls: -1"),
    ] {
        let refused = mixture.run(&words(script, more)).stderr;
        assert!(refused.contains(expected) && refused.contains("hint: "), "{more:?}: {refused}");
    }
    let dense = project(script, "llama");
    assert!(dense.run(&words(script, &[])).stderr.contains("has no experts"));
}

/// Analyses with and without lanes, one of whose lanes has no finite losses, and their report.
fn reported() -> Project {
    let project = project("scripts/report.rhai", "llama");
    project.copy("scripts/plots.rhai", "scripts/plots.rhai").copy("tests/fixtures/gpt2", "gpt2");
    let save = r#"
        import "interventions" as lanes;
        let tokens = load_tokens(#{ ids: "model/reference.safetensors" });
        let asked = lanes::against_random("zero", #{ sites: ["attn_in"], dims: [5] }, 2);
        asked.push(lanes::rounded("int8", "int8", "int8"));
        asked.push(lanes::scale_features("too large", #{ sites: ["resid_post"], dims: [1, 2] }, 1e30));
        let acts = load_model("model").extract(tokens, #{ lanes: asked, attention_top1: true });
        save_results("with", #{ activations: acts, found: acts.detect_outliers() });
        let acts = load_model("gpt2").extract(tokens, #{ logits: true });
        save_results("without", #{ activations: acts, found: acts.detect_outliers() });
    "#;
    project.script(save).ok();
    project
}

#[test]
fn the_report_has_a_section_and_a_figure_of_lanes_where_there_are_any() {
    let project = reported();
    project.run(&["run", "scripts/report.rhai"]).ok();
    for page in [project.text("results/report.html"), project.text("results/report.md")] {
        for part in
            ["Lanes: variants of the model", "dimension 5 of attn_in at 0", "2 controls at random", "inputs in int8"]
        {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert_eq!(page.matches("Lanes: variants of the model").count(), 1, "only where lanes were run");
        assert!(
            page.contains("The losses of &quot;too large&quot; are not finite")
                || page.contains("The losses of \"too large\" are not finite"),
            "{page}"
        );
    }
    let page = project.text("results/report.html");
    assert!(page.contains("What variants cost: with") && !page.contains("What variants cost: without"));
    project.run(&["run", "scripts/plots.rhai"]).ok();
    assert!(project.has("results/figures/with/lanes.png") && !project.has("results/figures/without/lanes.png"));
    // Controls apart: a legend with both groups, the line at 1, and no row for what is not finite.
    let figure = project.text("results/figures/with/lanes.svg");
    assert!(figure.contains("control") && figure.contains("variant") && !figure.contains("too large"), "{figure}");
}

#[test]
fn tables_of_lanes_are_exported() {
    let project = reported();
    let tables = ["lane_attention", "lane_comparison", "lane_norm_hits", "lanes"];
    let told = project.script(r#"for path in load_results("with").export_tables("parquet") { print(path); }"#).ok();
    for table in tables {
        assert!(told.contains(&format!("tables/{table}.parquet")), "{told}");
    }
    project.script(r#"export_tables(load_results("with"), "csv")"#).ok();
    let csv = |table: &str| project.text(&format!("results/with/tables/{table}.csv"));
    let lines = |table: &str| csv(table).lines().count();
    // Five lanes, the model as it is, and a row of heads.
    let sequences =
        project.json("results/with/final_analysis_results.json")["lanes"][0]["kl"].as_array().unwrap().len();
    assert_eq!((lines("lanes"), lines("lane_comparison")), (1 + 6 * sequences, 6));
    let head = csv("lane_comparison").lines().next().unwrap().to_string();
    for column in ["perplexity_ratio,", "perplexity_ratio_low", "perplexity_ratio_high", "p_value", "p_adjusted"] {
        assert!(head.contains(column), "{column} is not in {head}");
    }
    project.script(r#"export_tables(load_results("without"), "csv")"#).ok();
    assert!(project.files("results/without/tables").iter().all(|file| !file.starts_with("lane")));
}

#[test]
fn lanes_of_a_script_are_read_with_a_sentence_for_every_mistake() {
    let project = project("scripts/what_if.rhai", "llama");
    let with = |lanes: &str| {
        format!(
            "let acts = load_model(\"model\").extract(load_tokens(#{{ ids: \"model/reference.safetensors\" }}), #{{ lanes: {lanes} }});"
        )
    };
    for (lanes, expected) in [
        ("7", "expected an array of maps"),
        ("[7]", "no map"),
        ("[#{ changes: [] }]", "option `name` is missing"),
        ("[#{ name: \"a\" }]", "option `changes` is missing"),
        ("[#{ name: \"a\", changes: [], more: 1 }]", "unknown option `more`"),
        ("[#{ name: \"a\", changes: [#{ what: \"zeros\" }] }]", "did you mean `zero`"),
        ("[#{ name: \"a\", changes: [#{ what: \"zero\", dims: [1] }] }]", "option `sites` is missing"),
        ("[#{ name: \"a\", changes: [#{ what: \"zero\", sites: [\"attn_in\"] }] }]", "says none"),
        (
            "[#{ name: \"a\", changes: [#{ what: \"zero\", sites: [\"attn_in\"], dims: [1], factor: 2 }] }]",
            "unknown option `factor`",
        ),
        (
            "[#{ name: \"a\", changes: [#{ what: \"zero\", sites: [\"attn_in\"], dims: [1], random: 2 }] }]",
            "`dims` and `random`",
        ),
        ("[#{ name: \"a\", changes: [#{ what: \"zero\", sites: [\"attn\"], dims: [1] }] }]", "attn_in"),
        ("[#{ name: \"a\", changes: [#{ what: \"zero\", sites: [\"attn_in\"], dims: [99] }] }]", "has dimension 99"),
        (
            "[#{ name: \"a\", changes: [#{ what: \"zero\", sites: [\"attn_in\"], dims: [1], layers: [] }] }]",
            "leave it out for all",
        ),
        (
            "[#{ name: \"a\", changes: [#{ what: \"zero_elements\", layer: 0, elements: [1] }] }]",
            "[[sequence, position, dimension], …]",
        ),
        ("[#{ name: \"a\", changes: [#{ what: \"round_weights\", format: \"int3\" }] }]", "int3"),
    ] {
        let told = project.script(&with(lanes)).stderr;
        assert!(told.contains(expected), "{lanes}: {told}");
    }
    let stored =
        r#"[#{ name: "a", changes: [#{ what: "scale", factor: 0.5, sites: "resid_post", layers: 1, dims: 3 }] }]"#;
    let saved = format!(
        "{} save_results(\"one\", #{{ activations: acts, found: acts.detect_outliers() }});
         let again = load_results(\"one\");
         if again.compare_lanes().to_json() != acts.compare_lanes().to_json() {{ throw \"another comparison\"; }}
         if acts.sequences([2, 0]).lanes[1].kl[1] != acts.lanes[1].kl[0] {{ throw \"another sequence\"; }}",
        with(stored)
    );
    project.script(&saved).ok();
    let results: Value = project.json("results/one/final_analysis_results.json");
    crate::schema::check(&results, "final_analysis_results");
    assert_eq!(results["lanes"][0]["name"], "baseline");
    assert_eq!(results["lane_comparison"][0]["name"], "a");
    let planned = project.file("plan.rhai", with(stored)).run(&["plan", "plan.rhai"]).ok();
    assert!(planned.contains("1 pass"), "{planned}");
}
