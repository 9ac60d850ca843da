//! Tests of the places where scripts may write: every primitive that takes the name of a place, and
//! links that lead elsewhere.

use std::os::unix::fs::symlink;

use crate::project::{Outcome, Project};

const ACTS: &str = "let model = load_model(\"model\");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8]] });
let acts = model.extract_layernorms(tokens);
let all = #{ activations: acts, found: acts.detect_outliers() };\n";

const FIGURE: &str = "#{ kind: \"bars\", title: \"t\", categories: [\"a\"], groups: [#{ values: [1.0] }] }";

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

/// Every one of the calls must be refused; what was said, one line each.
#[track_caller]
fn refused(project: &Project, calls: &[String]) -> Vec<String> {
    let tries = calls
        .iter()
        .map(|call| format!("try {{ {call}; print(\"DONE \" + {call:?}); }} catch (e) {{ print(e.message); }}\n"));
    let text = project.script(&format!("{ACTS}{}", tries.collect::<String>())).ok();
    assert!(!text.contains("DONE"), "{text}");
    text.lines().map(str::to_string).collect()
}

fn calls(place: &str) -> Vec<String> {
    vec![
        format!("write_text(\"{place}/a.txt\", \"x\")"),
        format!("write_json(\"{place}/a.json\", 1)"),
        format!("write_table(\"{place}/a.csv\", [#{{ a: 1 }}])"),
        format!("save_figure(\"{place}/a.svg\", {FIGURE})"),
        format!("save_results(\"{}/a\", all)", place.strip_prefix("results/").unwrap_or(place)),
        format!("with_log(\"{}/a\", || 1)", place.strip_prefix("logs/").unwrap_or(place)),
        format!("model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"{place}\" }})"),
        format!("model.extract_layernorms(tokens, #{{ checkpoint: \"{place}/a\", checkpoint_layers: 1 }})"),
    ]
}

#[test]
pub fn tables_are_exported_below_results_only() {
    let (project, elsewhere) = (project(), project());
    elsewhere.script(&format!("{ACTS} save_results(\"a\", all);")).ok();
    let folder = elsewhere.path("results/a").display().to_string();
    let export = |path: &str| format!("export_tables(load_results({path:?}), \"csv\")");
    project.refuses(&export(&folder), 1, "export_tables: ", "copy it there and load that");
    assert!(!elsewhere.has("results/a/tables"));
    // Beside the analysis where it is one of this project, however it is named.
    elsewhere.script(&format!("print({}.len());", export(&folder))).ok();
    assert!(elsewhere.has("results/a/tables/norms.csv"));
    elsewhere.script(&export("./results/a")).ok();
}

#[test]
pub fn a_link_does_not_lead_a_file_out() {
    let (project, elsewhere) = (project(), Project::new());
    let out = elsewhere.path("");
    project.file("results/x", "").file("logs/x", "").file("checkpoints/x", "");
    for link in ["results/link", "logs/link", "checkpoints/link", "out"] {
        symlink(&out, project.path(link)).unwrap();
    }
    std::fs::create_dir(project.path("results/b")).unwrap();
    symlink(&out, project.path("results/b/tables")).unwrap();
    let mut all = [calls("results/link"), calls("results/link/deeper/still")].concat();
    all.push("save_results(\"link\", all)".to_string());
    all.push("with_log(\"link/a\", || 1)".to_string());
    all.push("save_results(\"b\", all); export_tables(load_results(\"b\"), \"csv\")".to_string());
    all.push("model.extract_layernorms(tokens, #{ keep: \"full\", out: \"out\" })".to_string());
    all.push(
        "model.extract_layernorms(tokens, #{ checkpoint: \"checkpoints/link/a\", checkpoint_layers: 1 })".to_string(),
    );
    let with_log = |call: &&String| !call.starts_with("with_log(\"results");
    let all: Vec<String> = all.iter().filter(with_log).cloned().collect();
    let lines = refused(&project, &all);
    assert!(lines.iter().all(|line| line.contains("leads out of")), "{lines:#?}");
    assert_eq!(elsewhere.files(""), [""; 0]);
    // A link in the place of a log is not written through; one in the place of a file is replaced.
    elsewhere.file("kept", "as it was");
    symlink(elsewhere.path("kept"), project.path("logs/a.log")).unwrap();
    symlink(elsewhere.path("kept"), project.path("results/a.txt")).unwrap();
    refused(&project, &["with_log(\"a\", || 1)".to_string()]);
    project.script("write_text(\"results/a.txt\", \"new\")").ok();
    assert_eq!((elsewhere.text("kept"), project.text("results/a.txt")), ("as it was".into(), "new".into()));
}

#[test]
fn a_results_folder_that_is_a_link_needs_the_users_word() {
    let (project, elsewhere) = (project(), Project::new());
    symlink(elsewhere.path(""), project.path("results")).unwrap();
    let script = format!("{ACTS} save_results(\"a\", all); write_text(\"results/t.txt\", \"x\");");
    let outcome = project.script(&script).ends(1);
    let folder = elsewhere.path("").display().to_string();
    assert!(outcome.stderr.contains("`outlier run --allow-write "), "{}", outcome.stderr);
    assert_eq!(elsewhere.files(""), [""; 0]);
    // Not by a word of the environment, which a folder may bring along.
    let mut command = project.command(&["run", "script.rhai"]);
    Outcome::of(command.env("OUTLIER_ALLOW_WRITE", &folder).output().unwrap()).ends(1);
    assert_eq!(elsewhere.files(""), [""; 0]);
    project.run(&["run", "--allow-write", &folder, "script.rhai"]).ok();
    assert!(elsewhere.has("a/final_analysis_results.json") && elsewhere.has("t.txt"));
    assert!(project.path("results").is_symlink());
}

#[test]
pub fn names_that_are_no_places_are_refused() {
    let project = project();
    let long = "x".repeat(300);
    let mut all: Vec<String> = Vec::new();
    for place in [
        "..",
        "/tmp",
        "results/..",
        "results/../..",
        "results/.keys",
        "results//a",
        "results/a\\x00b",
        "",
        "elsewhere/..",
    ] {
        all.extend(calls(place).into_iter().filter(|call| !call.contains("out: \"\"")));
    }
    all.extend(calls(&format!("results/{long}")).into_iter().filter(|call| !call.contains("with_log")));
    for path in
        ["results/a.txt/", "results", "results/", "results/gpus.sqlite", "results/gpus.sqlite-wal", ".", "stdlib/a.txt"]
    {
        all.push(format!("write_text({path:?}, \"x\")"));
    }
    let lines = refused(&project, &all);
    assert_eq!(lines.len(), all.len());
    let left: Vec<String> = project.files("results");
    assert_eq!(left, [""; 0]);
}

#[test]
fn the_hidden_files_of_the_project_are_not_places() {
    let project = project();
    project.file(".git/config", "[core]");
    let git = "model.extract_layernorms(tokens, #{ keep: \"full\", out: \".git\" })".to_string();
    let hook = "model.extract_layernorms(tokens, #{ checkpoint: \".git/hooks/x\", checkpoint_layers: 1 })".to_string();
    let lines = refused(&project, &[git, hook]);
    assert!(
        lines[0].contains("not a folder in the project") && lines[1].contains("not a file in the project"),
        "{lines:?}"
    );
    assert_eq!(project.files(".git"), ["config"]);
}

/// Wherever scripts run: the flag is one of `run`, `plan`, `test` and `repl`.
#[test]
fn where_the_user_allows_it_scripts_write() {
    let (project, elsewhere) = (project(), Project::new());
    let folder = elsewhere.path("new").display().to_string();
    let call = format!("model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"{folder}/out\" }})");
    let script = format!("{ACTS} {call};");
    project
        .file("script.rhai", &script)
        .file("a_test.rhai", format!("fn test_a() {{ {script} }}"))
        .file("input", &script);
    let repl = |words: &[&str]| {
        let mut command = project.command(words);
        command.stdin(std::fs::File::open(project.path("input")).unwrap());
        Outcome::of(command.output().unwrap())
    };
    let allowed = ["--allow-write", &folder];
    for (command, last) in [("run", "script.rhai"), ("plan", "script.rhai"), ("test", "a_test.rhai")] {
        let outcome = project.run(&[command, last]).ends(1);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("`outlier run --allow-write DIR SCRIPT` allows others"), "{command}: {said}");
        assert!(!elsewhere.has("new"));
        project.run(&[&[command], &allowed[..], &[last]].concat()).ok();
        assert_eq!(elsewhere.has("new/out/activations.safetensors"), command != "plan", "{command}");
        let _ = std::fs::remove_dir_all(elsewhere.path("new"));
    }
    repl(&["repl"]).ends(3);
    repl(&[&["repl"], &allowed[..]].concat()).ok();
    assert!(elsewhere.has("new/out/activations.safetensors"));
}

#[test]
fn all_activations_have_the_ids_of_their_tokens_and_are_replaced_by_the_next_run() {
    let project = Project::new();
    project.copy("tests/fixtures/olmoe", "model");
    let run = |first: usize| {
        let script = format!(
            "let ids = [[{first}, 5, 7, 9], [2, 4, 6, 8], [11, 12, 13, 14]];
             let options = #{{ keep: \"full\", out: \"out\" }};
             load_model(\"model\").extract_layernorms(load_tokens(#{{ ids: ids }}), options);
             print(load_tokens(#{{ ids: \"out/activations.safetensors\" }}).ids == ids);"
        );
        project.script(&script).ok()
    };
    // Outside of results/, only what this program has written is replaced.
    assert_eq!([run(3), run(1)], ["true\n", "true\n"]);
    let file = std::fs::read(project.path("out/activations.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let ids = tensors.tensor("input_ids").unwrap();
    assert_eq!((ids.dtype(), ids.shape()), (safetensors::Dtype::I32, &[3, 4][..]));
    assert_eq!(tensors.tensor("layers.0.input_layernorm").unwrap().shape()[..2], [3, 4]);
}
