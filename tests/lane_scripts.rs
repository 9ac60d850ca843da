//! Tests of the scripts about lanes on fixtures, and of how scripts ask for lanes.

use serde_json::Value;

use crate::project::Project;

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
fn what_formats_would_cost() {
    let script = "scripts/what_if.rhai";
    let project = project(script, "llama");
    let told = project.run(&words(script, &["--formats", "int8 int4 nvfp4"])).ends(0).stdout;
    assert!(told.contains("int8 both, outliers exact"), "{told}");
    let written = project.json("results/lanes/what_if_model.json");
    let kl = |name: &str| -> f64 {
        let rows = written["comparison"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["kl"]["value"].as_f64().unwrap()
    };
    assert!(kl("int8 both, outliers exact") < kl("int8 both") && kl("int8 both") < kl("nvfp4 both"), "{written}");
    assert!(kl("int8 weights") < kl("int4 weights"));
    let refused = project.run(&words(script, &["--formats", "int7"])).stderr;
    assert!(refused.contains("int7 is not known"), "{refused}");
}

#[test]
fn experts_that_are_switched_off() {
    let script = "scripts/super_experts.rhai";
    let mixture = project(script, "olmoe");
    let told = mixture.run(&words(script, &["--experts", "0:3,2:5"])).ends(0).stdout;
    assert!(told.contains("without super experts") && told.contains("without random ones 3"), "{told}");
    let written = mixture.json("results/lanes/super_experts_model.json");
    assert!(written["comparison"][0]["kl"]["value"].as_f64().unwrap() > 0.0);
    mixture.run(&words(script, &[])).ends(0);
    let dense = project(script, "llama");
    assert!(dense.run(&words(script, &[])).stderr.contains("has no experts"));
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
