//! Tests of the sweep over miniature models, and of each model's own script.

use serde_json::Value;

use crate::project::{FINAL, Outcome, Project};

/// Number, script and miniature of each model.
const MODELS: &[(&str, &str, &str)] = &[
    ("01", "olmoe_1b_7b", "olmoe"),
    ("02", "gpt_oss_20b", "gpt_oss"),
    ("03", "qwen3_30b", "qwen3_moe"),
    ("04", "mixtral_8x7b", "mixtral"),
    ("05", "qwen3_next_80b", "qwen3_next"),
    ("06", "glm_45_air", "glm4_moe"),
    ("07", "gpt_oss_120b", "gpt_oss_large"),
];

/// Fewer tokens than the sweep's own, where the outcome does not matter.
const FEW: [&str; 4] = ["--num-sequences", "2", "--sequence-length", "64"];

const SYNTHETIC: &str = "Miniature models are synthetic";

fn project() -> Project {
    let project = Project::new();
    project.copy("scripts", "scripts");
    project
}

/// `outlier run scripts/sweep.rhai --miniature --models …` and more words.
fn sweep(project: &Project, more: &[&str]) -> Outcome {
    let numbers: Vec<&str> = MODELS.iter().map(|(number, ..)| *number).collect();
    let words = [&["run", "scripts/sweep.rhai", "--miniature", "--models"], &numbers[..], more].concat();
    project.run(&words)
}

/// Cells of the lines of a table.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with('│'))
        .map(|line| line.trim_matches('│').split('┆').map(str::trim).collect())
        .collect()
}

#[test]
fn every_miniature_has_the_features_that_were_planted() {
    let project = project();
    let outcome = sweep(&project, &[]).ends(0);
    let rows = rows(&outcome.stdout);
    assert_eq!(rows[0][..2], ["model", "|x| ≥"]);
    let column = |name: &str| rows[0].iter().position(|cell| *cell == name).unwrap();
    assert_eq!(rows.len(), 1 + MODELS.len(), "{}", outcome.stdout);
    for (row, (_, name, miniature)) in rows[1..].iter().zip(MODELS) {
        assert_eq!((row[0], row[column("expected")]), (format!("miniature_{name}").as_str(), "as planted"));
        let folder = format!("results/miniature_{name}");
        assert!(outcome.stdout.contains(&format!("results: {folder}\n")), "{}", outcome.stdout);
        assert_eq!(project.files(&folder).iter().filter(|file| file.starts_with("batch_")).count(), 16);
        let whole = project.json(&format!("{folder}/{FINAL}"));
        assert_eq!(whole["analysis_summary"]["synthetic_model"], true);
        let mut dims: Vec<u64> = features(&whole).iter().map(|f| f["feature_dim"].as_u64().unwrap()).collect();
        dims.sort();
        assert_eq!(Value::from(dims.clone()), whole["settings"]["expected"]["dims"]);
        assert_eq!(row[column("features")], dims.len().to_string());
        assert_eq!(whole["pooled"]["classification"], whole["settings"]["expected"]["classification"]);
        // The original project expected systematic features of gpt-oss, and of no other.
        let class = if miniature.contains("gpt_oss") { "SYSTEMATIC" } else { "PROBABILISTIC" };
        assert_eq!(row[column("class")], class);
        assert!(outcome.stderr.contains(&format!("{name}: done in ")), "{}", outcome.stderr);
    }
    assert!(outcome.stdout.contains(SYNTHETIC), "{}", outcome.stdout);
}

fn features(whole: &Value) -> &Vec<Value> {
    whole["pooled"]["features"].as_array().unwrap()
}

#[test]
fn a_dry_run_plans_and_does_nothing() {
    let project = project();
    let text = sweep(&project, &["--dry-run"]).ok();
    let rows = rows(&text);
    assert_eq!(rows[0][..3], ["experiment", "model", "where"]);
    let named: Vec<&str> = rows[1..].iter().map(|row| row[0]).collect();
    assert_eq!(named, MODELS.iter().map(|(_, name, _)| format!("miniature_{name}")).collect::<Vec<_>>());
    assert!(
        rows[1..].iter().all(|row| row[2] == "this machine" && row[5].ends_with('B') && row[6].ends_with('B')),
        "{text}"
    );
    let outside: Vec<_> =
        project.files("results").into_iter().filter(|file| !file.starts_with("miniature_models/")).collect();
    assert_eq!(outside, [""; 0], "a dry run makes miniature models and nothing else");
}

#[test]
fn one_broken_model_does_not_stop_the_others() {
    let project = project();
    sweep(&project, &["--dry-run"]).ok();
    let (_, broken, miniature) = MODELS[0];
    let shard = format!("results/miniature_models/{miniature}/model-00001-of-00002.safetensors");
    let data = project.bytes(&shard);
    project.file(&shard, &data[..data.len() / 2]);
    let outcome = sweep(&project, &FEW).ends(3);
    assert!(outcome.stderr.contains(&format!("FAILED {broken}: ")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("model-00001-of-00002.safetensors") && outcome.stderr.contains("hint: "));
    let named: Vec<&str> = rows(&outcome.stdout)[1..].iter().map(|row| row[0]).collect();
    assert_eq!(named, MODELS[1..].iter().map(|(_, name, _)| format!("miniature_{name}")).collect::<Vec<_>>());
    assert!(!project.has(&format!("results/miniature_{broken}")));
    for (_, name, _) in &MODELS[1..] {
        assert!(project.has(&format!("results/miniature_{name}/{FINAL}")));
    }
}

#[test]
fn every_model_has_a_script_that_runs_alone() {
    for (number, name, _) in MODELS {
        let project = project();
        let script = format!("scripts/{number}_{name}.rhai");
        let words = [&["run", script.as_str(), "--miniature"], &FEW[..]].concat();
        let text = project.run(&words).ok();
        assert_eq!(rows(&text)[1][0], format!("miniature_{name}"));
        assert!(text.ends_with(&format!("results: results/miniature_{name}\n")), "{text}");
        let whole = project.json(&format!("results/miniature_{name}/{FINAL}"));
        assert_eq!(whole["settings"]["experiment"], *name);
        assert_eq!(whole["provenance"]["tokens"]["sequence_length"], 64);
    }
}

#[test]
fn a_script_says_that_its_miniature_is_synthetic() {
    let (number, name, _) = MODELS[0];
    let script = format!("scripts/{number}_{name}.rhai");
    let outcome = project().run(&[&["run", script.as_str(), "--miniature"], &FEW[..]].concat()).ends(0);
    assert!(outcome.stdout.contains(SYNTHETIC), "{}", outcome.stdout);
}

#[test]
fn models_that_do_not_exist_are_bad_usage() {
    let outcome = project().run(&["run", "scripts/sweep.rhai", "--miniature", "--models", "01", "9"]).ends(2);
    assert!(outcome.stderr.contains("there is no model 09") && outcome.stderr.contains("hint: models are 01 to 07"));
    assert!(outcome.stdout.is_empty());
}

#[test]
fn real_models_need_a_text() {
    let outcome = project().run(&["run", "scripts/sweep.rhai", "--models", "01"]).ends(3);
    assert!(outcome.stderr.contains("FAILED olmoe_1b_7b: olmoe_1b_7b: no text to read"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("give --text FILE, --dataset OWNER/NAME, or --miniature"), "{}", outcome.stderr);
}

/// One pass answers every threshold: another one reads the record, and its results have a name of their own.
#[test]
fn another_threshold_needs_no_pass() {
    let project = project();
    let run = |more: &[&str]| {
        let words = [&["run", "scripts/sweep.rhai", "--miniature", "--models", "01"], &FEW[..], more].concat();
        project.run(&words).ends(0)
    };
    run(&[]);
    let at_six = project.text("results/miniature_olmoe_1b_7b/final_analysis_results.json");
    // A pass could not be made any more.
    for shard in project.files("results/miniature_models/olmoe").iter().filter(|file| file.ends_with(".safetensors")) {
        std::fs::remove_file(project.path("results/miniature_models/olmoe").join(shard)).unwrap();
    }
    let outcome = run(&["--magnitude-threshold", "7"]);
    let answered = "miniature_olmoe_1b_7b_at_7: answered by the record of miniature_olmoe_1b_7b, without a pass";
    assert!(outcome.stderr.contains(answered), "{}", outcome.stderr);
    let table = rows(&outcome.stdout);
    let cell = |name: &str| table[1][table[0].iter().position(|cell| *cell == name).unwrap()];
    assert_eq!((cell("model"), cell("|x| ≥"), cell("seconds")), ("miniature_olmoe_1b_7b_at_7", "7", "no pass"));
    assert!(outcome.stdout.ends_with("results: results/miniature_olmoe_1b_7b_at_7\n"), "{}", outcome.stdout);
    assert_eq!(
        project.text("results/miniature_olmoe_1b_7b/final_analysis_results.json"),
        at_six,
        "what was stored stays"
    );
    let at_seven = project.json(&format!("results/miniature_olmoe_1b_7b_at_7/{FINAL}"));
    assert_eq!(at_seven["pooled"]["criterion"]["magnitude_threshold"], 7.0);
    assert!(run(&["--magnitude-threshold", "7"]).stderr.contains("stored already"));
    // A model's own script does the same.
    let words = ["run", "scripts/01_olmoe_1b_7b.rhai", "--miniature", "--magnitude-threshold", "8"];
    let text = project.run(&[&words[..], &FEW[..]].concat()).ok();
    assert!(text.ends_with("results: results/miniature_olmoe_1b_7b_at_8\n"), "{text}");
}

/// Results of another size do not take the place of those that are there.
#[test]
fn other_settings_have_another_name() {
    let project = project();
    let run = |size: [&str; 4]| {
        let words = [&["run", "scripts/01_olmoe_1b_7b.rhai", "--miniature"][..], &size].concat();
        project.run(&words).ok()
    };
    let four = ["--num-sequences", "4", "--sequence-length", "32"];
    assert!(run(FEW).ends_with("results: results/miniature_olmoe_1b_7b\n"));
    assert!(run(four).ends_with("results: results/miniature_olmoe_1b_7b_4x32\n"));
    assert!(run(FEW).ends_with("results: results/miniature_olmoe_1b_7b\n"));
    let sizes = ["miniature_olmoe_1b_7b", "miniature_olmoe_1b_7b_4x32"]
        .map(|name| project.json(&format!("results/{name}/{FINAL}"))["run_config"]["num_sequences"].as_u64().unwrap());
    assert_eq!(sizes, [2, 4]);
    project.file("other.txt", "To be, or not to be, that is the question. ".repeat(200));
    let words = [&["run", "scripts/01_olmoe_1b_7b.rhai", "--miniature", "--text", "other.txt"][..], &FEW].concat();
    assert!(project.run(&words).ok().ends_with("results: results/miniature_olmoe_1b_7b_other\n"));
}

/// A text that is not there is told before anybody is asked for anything.
#[test]
fn a_text_that_is_missing_is_told_first() {
    let outcome = project().run(&["run", "scripts/sweep.rhai", "--text", "missing.txt"]).ends(3);
    let errors: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.contains("error: ") || line.contains("FAILED")).collect();
    assert_eq!(errors.len(), 1, "{}", outcome.stderr);
    assert!(errors[0].contains("missing.txt") && !outcome.stderr.contains("hub"), "{}", outcome.stderr);
    let outcome = project().run(&["run", "scripts/01_olmoe_1b_7b.rhai", "--text", "missing.txt"]).ends(3);
    assert!(outcome.stderr.contains("missing.txt") && !outcome.stderr.contains("hub"), "{}", outcome.stderr);
}

/// A hub that cannot be reached is asked for the first model, and told of once.
#[test]
fn a_hub_that_is_away_is_told_once() {
    let project = project();
    project.file("corpus.txt", "words");
    for words in [
        &["run", "scripts/models.rhai"][..],
        &["run", "scripts/sweep.rhai", "--text", "corpus.txt"],
        &["run", "scripts/sweep.rhai", "--text", "corpus.txt", "--dry-run"],
    ] {
        let outcome = project.run(words).ends(3);
        let failed: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("FAILED")).collect();
        assert_eq!(failed.len(), 1, "{words:?}: {}", outcome.stderr);
        assert!(
            failed[0].to_lowercase().contains("glm") && failed[0].contains("is the network reachable?"),
            "{}",
            failed[0]
        );
    }
}

/// Only the first request is made again and again.
#[test]
fn a_hub_that_is_away_is_asked_in_vain_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    std::thread::spawn(move || {
        // Every call is taken and ended without a word.
        for stream in listener.incoming() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(stream);
        }
    });
    let project = project();
    let mut command = project.command(&["run", "scripts/models.rhai"]);
    Outcome::of(command.env("HF_ENDPOINT", address).output().unwrap()).ends(3);
    let calls = calls.load(std::sync::atomic::Ordering::SeqCst);
    assert!(calls <= 6 + 6, "six for the first model, one for each of the others: {calls}");
}

#[test]
fn a_cluster_that_fails_is_a_failure() {
    let project = Project::new();
    project.copy("examples", "examples");
    let outcome = project.run(&["run", "examples/09_slurm_sweep.rhai"]).ends(3);
    assert!(
        outcome.stderr.contains("FAILED olmoe: ") && outcome.stderr.contains("FAILED mixtral: "),
        "{}",
        outcome.stderr
    );
}

#[test]
fn miniatures_are_made_once() {
    let (first, second) = (project(), project());
    sweep(&first, &["--dry-run"]).ok();
    let made = first.files("results/miniature_models");
    let times = |project: &Project| -> Vec<_> {
        let path = |file: &String| project.path("results/miniature_models").join(file);
        made.iter().map(|file| std::fs::metadata(path(file)).unwrap().modified().unwrap()).collect()
    };
    let before = times(&first);
    sweep(&first, &["--dry-run"]).ok();
    assert_eq!(times(&first), before, "what is there is used");
    // From a fixed seed: the same everywhere.
    sweep(&second, &["--dry-run"]).ok();
    for file in made {
        let file = format!("results/miniature_models/{file}");
        assert!(first.bytes(&file) == second.bytes(&file), "{file} differs");
    }
    let script = "miniature_model(\"olmo\")";
    Project::new().refuses(script, 3, "no miniature model \"olmo\"", "did you mean `olmoe`?");
}
