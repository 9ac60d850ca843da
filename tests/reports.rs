//! From stored results to tables, figures, a report and exports: the scripts `analyze`, `plots` and `report`.

use serde_json::Value;

use crate::project::{Project, repository};
use crate::schema;

/// A project with two analyses, one of a mixture of experts with losses, and a folder that is damaged.
fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "mixtral").copy("tests/fixtures/llama", "llama");
    for script in ["analyze", "plots", "report"] {
        project.copy(&format!("scripts/{script}.rhai"), &format!("scripts/{script}.rhai"));
    }
    let save = r#"
        for name in ["mixtral", "llama"] {
            let acts = load_model(name).extract_layernorms(load_tokens(#{ ids: name + "/reference.safetensors" }), #{ logits: true });
            let criterion = #{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, min_layer_percentage: 0.1 };
            save_results(name, #{ activations: acts, found: acts.detect_outliers(criterion),
                intervals: acts.bootstrap_ci(criterion + #{ n_resamples: 100 }) });
        }
        let acts = load_model("llama").extract_layernorms(load_tokens(#{ ids: "llama/reference.safetensors" }));
        save_results("damaged", #{ activations: acts, found: acts.detect_outliers() });
    "#;
    project.script(save).ok();
    project.file("results/damaged/activations.stats", "not a record");
    project
}

#[test]
fn a_summary_of_all_results() {
    let project = project();
    let outcome = project.run(&["run", "scripts/analyze.rhai", "--tables", "csv"]);
    assert!(
        outcome.stderr.contains("skipped damaged: ") && outcome.stderr.contains("activations.stats"),
        "{}",
        outcome.stderr
    );
    let text = outcome.ok();
    for word in [
        "│ llama",
        "│ mixtral",
        "layer %",
        "published outliers",
        "original project's definition",
        "results/summary.csv",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let summary = project.json("results/summary.json");
    schema::check(&summary, "summary");
    let models = summary["models"].as_array().unwrap();
    assert_eq!(models.iter().map(|m| m["name"].as_str().unwrap()).collect::<Vec<_>>().len(), 2);
    assert_eq!(summary["skipped"][0]["name"], "damaged");
    let csv = project.text("results/summary.csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    let mixtral = models.iter().find(|m| m["name"] == "mixtral").unwrap();
    assert!(mixtral["perplexity"].as_f64().unwrap() > 1.0 && mixtral["features"].as_u64().unwrap() > 0, "{mixtral}");
    // The original's count is the length of its list.
    let whole = project.json("results/mixtral/final_analysis_results.json");
    let at_six = project
        .script(r#"print(load_results("mixtral").detect_outliers(#{ scope: "per_sequence" }).num_features)"#)
        .ok();
    assert_eq!(at_six.trim(), mixtral["original_outliers"].to_string());
    assert_eq!(whole["pooled"]["num_features"], mixtral["features"]);
    let tables = project.files("results/mixtral/tables");
    assert_eq!(
        tables,
        ["experts.csv", "features.csv", "features_per_sequence.csv", "magnitudes.csv", "norms.csv", "sequences.csv"]
    );
    let features = project.text("results/mixtral/tables/features.csv");
    assert_eq!(features.lines().count() as u64, 1 + mixtral["features"].as_u64().unwrap());
}

#[test]
fn every_figure_is_drawn_twice() {
    let project = project();
    let look = project.run(&["run", "scripts/plots.rhai", "--look"]).ok();
    assert!(look.contains('█') && !project.has("results/figures"), "{look}");
    project.run(&["run", "scripts/plots.rhai"]).ok();
    let files = project.files("results/figures");
    for name in [
        "mixtral/heat_map",
        "mixtral/magnitude_by_layer",
        "mixtral/criterion_sweep",
        "mixtral/histogram",
        "mixtral/expert_coverage",
        "llama/heat_map",
        "models_features",
        "models_perplexity",
        "total_size_layer_percentage",
        "active_size_position_percentage",
        "perplexity_layer_percentage",
    ] {
        for format in ["svg", "png"] {
            assert!(files.contains(&format!("{name}.{format}")), "{name}.{format} is not in {files:?}");
        }
    }
    assert!(!files.iter().any(|file| file.starts_with("llama/expert")), "{files:?}");
    for file in &files {
        let bytes = project.bytes(&format!("results/figures/{file}"));
        let (is, begin) = if file.ends_with("png") { ("a PNG", &b"\x89PNG"[..]) } else { ("an SVG", &b"<svg"[..]) };
        assert!(bytes.starts_with(begin) && bytes.len() > 1000, "{file} is not {is}");
    }
}

#[test]
fn the_report_is_one_file_that_needs_nothing_else() {
    let project = project();
    project.run(&["run", "scripts/report.rhai", "--title", "A <test>"]).ok();
    let page = project.text("results/report.html");
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    for word in [
        "<title>A &lt;test&gt;</title>",
        "Summary",
        "Method",
        "Provenance",
        "Costs",
        "Citation",
        "damaged",
        "<svg",
        "Dettmers",
    ] {
        assert!(page.contains(word), "{word}");
    }
    assert!(!page.contains("{{"), "a place of the template is left");
    // Nothing is fetched: what looks like an address is a name space or a citation.
    for loads in ["src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(loads), "{loads}");
    }
    for name in ["table", "thead", "tr", "td", "th", "figure", "details", "div", "svg", "ul", "li", "script", "canvas"]
    {
        let opened = page.matches(&format!("<{name}>")).count() + page.matches(&format!("<{name} ")).count();
        assert_eq!(opened, page.matches(&format!("</{name}>")).count(), "{name}");
    }
    let data = page.split("id=\"heat-maps\">").nth(1).unwrap().split("</script>").next().unwrap();
    let maps: Value = serde_json::from_str(data).unwrap();
    let map = &maps["mixtral"];
    let cells = map["norms"].as_array().unwrap().len() * map["columns"].as_u64().unwrap() as usize;
    assert_eq!(map["values"].as_str().unwrap().len(), cells.div_ceil(3) * 4);
    let text = project.text("results/report.md");
    assert!(
        text.starts_with("# A <test>\n") && text.contains("| feature | class |") && text.contains("## Costs"),
        "{text}"
    );
}

#[test]
fn without_results_there_is_nothing_to_report() {
    let project = Project::new();
    for script in ["analyze", "plots", "report"] {
        project.copy(&format!("scripts/{script}.rhai"), &format!("scripts/{script}.rhai"));
        let outcome = project.run(&["run", &format!("scripts/{script}.rhai")]);
        assert!(outcome.code != 0 && outcome.stderr.contains("there are no results"), "{}", outcome.stderr);
    }
}

#[test]
fn the_newest_analysis_of_a_model_speaks_for_it() {
    let project = project();
    project
        .script(
            r#"
        let stored = load_results("mixtral");
        save_results("earlier", #{ activations: stored.activations, found: stored.found, intervals: stored.intervals });
    "#,
        )
        .ok();
    let path = "results/earlier/final_analysis_results.json";
    let mut earlier = project.json(path);
    earlier["measurements"]["completion_time"] = "2020-01-01T00:00:00Z".into();
    project.file(path, earlier.to_string());
    let names = |words: &[&str]| {
        project.run(&[&["run", "scripts/analyze.rhai"][..], words].concat()).ok();
        let summary = project.json("results/summary.json");
        summary["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["name"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert!(!names(&[]).contains(&"earlier".to_string()));
    assert!(names(&["--all"]).contains(&"earlier".to_string()));
}

#[test]
fn results_are_what_their_schemas_say() {
    let project = project();
    for name in ["mixtral", "llama"] {
        let file = |file: &str| project.json(&format!("results/{name}/{file}"));
        schema::check(&file("final_analysis_results.json"), "final_analysis_results");
        schema::check(&file("batch_000_results.json"), "batch_results");
        schema::check(&file("config.json"), "config");
    }
    let mut broken = project.json("results/llama/config.json");
    broken["criterion"]["layer_unit"] = "layer".into();
    assert!(schema::problems(&broken, "config").iter().any(|problem| problem.contains("layer_unit")));
}

#[test]
fn scripts_write_below_results_only() {
    let project = Project::new();
    for path in
        ["summary.json", "../results/x.json", "/tmp/x.json", "results", "src/results/x.json", "results/../x.json"]
    {
        let outcome = project.script(&format!("write_json({path:?}, 1)"));
        assert!(
            outcome.code == 1 && outcome.stderr.contains("is not below results/ or logs/"),
            "{path}: {}",
            outcome.stderr
        );
    }
    assert_eq!(project.script(r#"print(write_json("results/a/x.json", #{ one: 1 }))"#).ok(), "results/a/x.json\n");
    assert_eq!(project.json("results/a/x.json")["one"], 1);
    assert!(repository().join("docs/schema").is_dir());
}
