//! Tests of tables, figures, a report and exports from stored results: the scripts `analyze`,
//! `plots` and `report`.

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

/// The share of norms stood beside an interval of the share of decoder layers, where those are what
/// a criterion counts.
#[test]
fn shares_of_layers_are_of_what_the_criterion_counts() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "llama").copy("scripts/analyze.rhai", "scripts/analyze.rhai");
    let save = r#"
        let acts = load_model("llama").extract_layernorms(load_tokens(#{ ids: "llama/reference.safetensors" }));
        let criterion = #{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, min_layer_percentage: 0.1, layer_unit: "block" };
        let found = acts.detect_outliers(criterion);
        save_results("blocks", #{ activations: acts, found: found, intervals: acts.bootstrap_ci(criterion + #{ n_resamples: 100 }) });
        print(100.0 * found.features.reduce(|sum, f| sum + f.layer_percentage_blocks, 0.0) / found.features.len());
    "#;
    let blocks: f64 = project.script(save).ok().trim().parse().unwrap();
    let text = project.run(&["run", "scripts/analyze.rhai"]).ok();
    let ours = text.split("By the original").next().unwrap();
    assert!(ours.contains("largest % of decoder layers") && !ours.contains("of norms"), "{text}");
    let summary = project.json("results/summary.json");
    schema::check(&summary, "summary");
    let mean = summary["models"][0]["mean_layer_pct"].as_f64().unwrap();
    assert!((mean - blocks).abs() < 1e-6, "{mean} and {blocks}");
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
        "% of norms",
        "largest % of norms",
        "┆     3 ┆",
        "original project's definition",
        "SYSTEMATIC: at least one feature",
        "No claims are tested: ",
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
    let summary = project.json("results/summary.json");
    schema::check(&summary, "summary");
    assert_eq!(summary["left_out"][0]["name"], "earlier");
    assert!(names(&["--all"]).contains(&"earlier".to_string()));
    // Every script that takes the newest says what it leaves out, and why.
    for script in ["analyze", "plots", "report"] {
        let told = |words: &[&str]| {
            let path = format!("scripts/{script}.rhai");
            let outcome = project.run(&[&["run", path.as_str()][..], words].concat());
            outcome.stderr.lines().filter(|line| line.starts_with("left out ")).map(str::to_string).collect::<Vec<_>>()
        };
        let why = "left out earlier: mixtral is a newer analysis of the same model (mixtral); --all takes both";
        assert_eq!((told(&[]), told(&["--all"])), (vec![why.to_string()], vec![]), "{script}");
    }
    project.run(&["run", "scripts/report.rhai"]).ok();
    for file in ["results/report.html", "results/report.md"] {
        assert!(project.text(file).contains("mixtral is a newer analysis of the same model"), "{file}");
    }
}

/// Synthetic results are recognised by a field of the stored result, whatever their name is.
#[test]
fn a_renamed_synthetic_model_is_still_synthetic() {
    let project = project();
    let save = r#"
        let made = miniature_model("olmoe");
        let model = load_model(made.path);
        let tokens = load_tokens(#{ text: made.text, model: model, num_sequences: 2, sequence_length: 64 });
        let acts = model.extract_layernorms(tokens);
        save_results("my_own_model", #{ activations: acts, found: acts.detect_outliers() });
    "#;
    project.script(save).ok();
    let note = "1 of 3 models";
    let one = "my_own_model is synthetic: ";
    let text = project.run(&["run", "scripts/analyze.rhai"]).ok();
    assert!(text.contains(one) && !text.contains(note), "{text}");
    let row = text.lines().find(|line| line.starts_with("│ my_own_model ")).unwrap();
    assert!(row.contains(" synthetic "), "{row}");
    let row = text.lines().find(|line| line.starts_with("│ mixtral ")).unwrap();
    assert!(row.contains(" trained "), "{row}");
    project.run(&["run", "scripts/report.rhai"]).ok();
    let page = project.text("results/report.html");
    assert_eq!(page.matches(one).count(), 1, "marked once");
    assert!(!page.contains("named miniature"));
    project.run(&["run", "scripts/plots.rhai"]).ok();
    assert!(project.text("results/figures/my_own_model/heat_map.svg").contains("my_own_model (synthetic)"));
    assert!(project.text("results/figures/models_features.svg").contains("my_own_model *"));
}

/// Claims compare only what is comparable: trained models that were analysed with the same
/// settings.
#[test]
fn claims_are_about_trained_models_of_equal_settings() {
    let project = Project::new();
    project.copy("scripts/analyze.rhai", "scripts/analyze.rhai");
    for name in ["llama", "qwen3", "gpt2", "opt"] {
        project
            .copy(&format!("tests/fixtures/{name}"), name)
            .copy(&format!("tests/fixtures/{name}"), &format!("{name}_2"));
    }
    let save = |names: &str, threshold: &str| {
        project
            .script(&format!(
                "for name in [{names}] {{
                    let acts = load_model(name).extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3, 4], [5, 6, 7, 8]] }}));
                    save_results(name, #{{ activations: acts, found: acts.detect_outliers(#{{ magnitude_threshold: {threshold},
                        min_layer_percentage: 0.0, min_seq_percentage: 0.0 }}) }});
                }}"
            ))
            .ok();
    };
    let claims = || {
        let text = project.run(&["run", "scripts/analyze.rhai"]).ok();
        let summary = project.json("results/summary.json");
        schema::check(&summary, "summary");
        (text, summary["claims"].as_array().unwrap().clone())
    };
    let all = r#""llama", "llama_2", "qwen3", "qwen3_2", "gpt2", "gpt2_2""#;
    save(all, "3.0");
    let (text, tested) = claims();
    assert!(!tested.is_empty() && text.contains("Claims, tested by permutation"), "{text}");
    assert!(tested.iter().all(|claim| claim["settings"].as_str().unwrap().contains("|x| ≥ 3 ")), "{tested:?}");
    // Half of them at another threshold: three of each are too few.
    save(r#""llama", "qwen3", "gpt2""#, "4.0");
    let (text, tested) = claims();
    assert_eq!(tested, Vec::<Value>::new(), "{text}");
    assert!(text.contains("No claims are tested: ") && text.contains("6 trained models in 2 settings"), "{text}");
    // Synthetic ones are none of them.
    for name in ["llama", "llama_2", "qwen3"] {
        let path = format!("{name}/config.json");
        let mut config = project.json(&path);
        config["_outlier_synthetic"] = true.into();
        project.file(&path, config.to_string());
    }
    save(all, "3.0");
    let (text, tested) = claims();
    assert_eq!(tested, Vec::<Value>::new(), "{text}");
    assert!(text.contains("3 trained models in 1 setting."), "{text}");
}

/// Columns without values are left out, and the report begins with the answer.
#[test]
fn a_report_answers_first_and_has_no_empty_columns() {
    let project = project();
    project.run(&["run", "scripts/report.rhai"]).ok();
    let page = project.text("results/report.html");
    let answer = page.split("<div class=\"answer\">").nth(1).unwrap().split("</div>").next().unwrap();
    let found = &project.json("results/mixtral/final_analysis_results.json")["pooled"];
    let count = found["num_features"].as_u64().unwrap();
    assert!(answer.contains(&format!("<p>mixtral has {count} outlier feature")), "{answer}");
    assert!(answer.contains("<p>llama has "), "{answer}");
    for part in
        ["at |x| ≥ 3,", "% of the ", "of positions", "Its class is ", "of resamples", "A feature dimension passes when"]
    {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert!(page.find("class=\"answer\"").unwrap() < page.find("class=\"contents\"").unwrap());
    // Nobody has published anything about these models, rented a machine for them, or given them a revision.
    for head in ["published outliers", "published perplexity", "USD", "revision", "weights"] {
        assert!(!page.contains(&format!("<th>{head}</th>")), "{head}");
    }
    // Every entry of the contents is somewhere on the page.
    for entry in page.split("data-to=\"").skip(1) {
        let id = entry.split('"').next().unwrap();
        assert!(page.contains(&format!("<h2 id=\"{id}\">")), "{id}");
    }
}

/// A heading does not announce columns that are left out.
#[test]
fn what_nobody_has_published_is_not_announced() {
    let text = project().run(&["run", "scripts/analyze.rhai"]).ok();
    assert!(text.contains("\nBy the original project's definition:\n") && !text.contains("published"), "{text}");
}

/// A figure of models has at least two models.
#[test]
fn a_number_that_one_model_has_is_not_compared() {
    let project = project();
    std::fs::remove_dir_all(project.path("results/mixtral")).unwrap();
    project.copy("tests/fixtures/olmoe", "olmoe");
    let save = r#"
        let acts = load_model("olmoe").extract_layernorms(load_tokens(#{ ids: "olmoe/reference.safetensors" }));
        save_results("olmoe", #{ activations: acts, found: acts.detect_outliers() });
    "#;
    project.script(save).ok();
    project.run(&["run", "scripts/plots.rhai"]).ok();
    let files = project.files("results/figures");
    assert!(files.contains(&"models_features.svg".to_string()), "{files:?}");
    assert!(!files.iter().any(|file| file.contains("perplexity")), "{files:?}");
}

/// The subject of the report's first sentences also comes first below.
#[test]
fn trained_models_stand_before_synthetic_ones() {
    let project = project();
    let save = r#"
        let made = miniature_model("olmoe");
        let acts = load_model(made.path).extract_layernorms(load_tokens(#{ ids: [[5, 6, 7], [8, 9, 10]] }));
        save_results("a_synthetic_one", #{ activations: acts, found: acts.detect_outliers() });
    "#;
    project.script(save).ok();
    project.run(&["run", "scripts/report.rhai"]).ok();
    let (page, text) = (project.text("results/report.html"), project.text("results/report.md"));
    let at = |text: &str, head: &str| text.find(head).unwrap_or_else(|| panic!("{head} is missing"));
    assert!(at(&page, "<summary>mixtral") < at(&page, "<summary>a_synthetic_one"));
    assert!(at(&text, "\n### mixtral") < at(&text, "\n### a_synthetic_one"));
}

#[test]
fn one_model_is_compared_with_nobody() {
    let project = project();
    std::fs::remove_dir_all(project.path("results/mixtral")).unwrap();
    project.run(&["run", "scripts/report.rhai"]).ok();
    let page = project.text("results/report.html");
    assert!(!page.contains("Models compared") && !page.contains("Claims"), "sections that nobody fills are left out");
}

#[test]
fn colours_of_architectures_stay_when_a_result_is_added() {
    let project = project();
    let draw = || {
        project.run(&["run", "scripts/plots.rhai"]).ok();
        let svg = project.text("results/figures/models_features.svg");
        let mark = svg.lines().find(|line| line.contains("<title>mixtral: ")).unwrap();
        mark.split("fill=\"").nth(1).unwrap().split('"').next().unwrap().to_string()
    };
    let both = draw();
    std::fs::remove_dir_all(project.path("results/llama")).unwrap();
    assert_eq!(draw(), both);
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
