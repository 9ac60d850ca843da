//! Tables at a terminal of 80 columns: nothing wraps, and what is not shown is named. A pipe gets everything.

use crate::fake_runpod::FakeRunPod;
use crate::project::Project;
use crate::runpod;
use crate::terminal::{at_terminal, too_wide};

/// A project with analyses of models with long names, and a few scripts.
fn project() -> Project {
    let project = Project::new();
    project.copy("scripts", "scripts").copy("examples", "examples");
    project.copy("tests/fixtures/mixtral", "mixtral").copy("tests/fixtures/llama", "llama");
    let save = r#"
        for name in ["mixtral", "llama"] {
            let acts = load_model(name).extract_layernorms(load_tokens(#{ ids: name + "/reference.safetensors" }), #{ logits: true });
            let criterion = #{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, min_layer_percentage: 0.1 };
            save_results(name + "_with_a_name_of_some_length", #{ activations: acts, found: acts.detect_outliers(criterion),
                intervals: acts.bootstrap_ci(criterion + #{ n_resamples: 100 }) });
        }
    "#;
    project.script(save).ok();
    project
}

#[track_caller]
fn fits(project: &Project, words: &[&str], input: &str) -> String {
    shown(project.command(words), words, input)
}

#[track_caller]
fn shown(command: std::process::Command, words: &[&str], input: &str) -> String {
    let (code, lines) = at_terminal(command, 80, input);
    let text = lines.join("\n");
    assert_eq!(code, 0, "{words:?}\n{text}");
    assert!(too_wide(&lines, 80).is_empty(), "{words:?}\n{text}");
    assert!(text.contains('│'), "there is a table: {words:?}\n{text}");
    text
}

#[test]
fn nothing_wraps_at_eighty_columns() {
    let project = project();
    let text = fits(&project, &["run", "scripts/analyze.rhai"], "");
    assert!(text.contains("not shown at this width: ") && text.contains("class"), "{text}");
    fits(&project, &["run", "scripts/plots.rhai", "--look"], "");
    let few = ["--miniature", "--models", "01", "05", "--num-sequences", "2", "--sequence-length", "64"];
    let sweep = [&["run", "scripts/sweep.rhai"], &few[..]].concat();
    let text = fits(&project, &sweep, "");
    assert!(text.contains("not shown at this width: ") && text.contains("features"), "{text}");
    fits(&project, &[&sweep[..], &["--dry-run"]].concat(), "");
    fits(&project, &[&sweep[..], &["--status"]].concat(), "");
    fits(&project, &["run", "scripts/quickstart.rhai"], "");
    fits(&project, &["plan", "scripts/quickstart.rhai"], "");
    fits(&project, &["plan", "scripts/01_olmoe_1b_7b.rhai", "--miniature"], "");
    fits(&project, &["rethreshold", "results/mixtral_with_a_name_of_some_length", "--magnitude", "2.9"], "");
}

#[test]
fn detections_at_the_prompt_fit_the_terminal() {
    let typed = "let found = load_results(\"mixtral_with_a_name_of_some_length\").found;
found
found.features
found.layer_stats
load_results(\"llama_with_a_name_of_some_length\").sweep_criteria(#{ magnitude_threshold: [3.0, 4.0], n_resamples: 50 })
";
    let text = fits(&project(), &["repl"], typed);
    // What a row is about comes first, and is never what is left out.
    assert!(text.contains("│ feature_dim ┆") || text.contains("│ feature_dim "), "{text}");
    assert!(text.contains("│ norm"), "{text}");
}

#[test]
fn machines_fit_the_terminal() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    project.file(
        "script.rhai",
        "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", task: \"a_task_of_some_length\", keep_running: true });",
    );
    assert!(runpod::command(&project, &fake, &["run", "script.rhai"]).status().unwrap().success());
    let text = shown(runpod::command(&project, &fake, &["gpus"]), &["gpus"], "");
    assert!(text.contains("not shown at this width: "), "{text}");
    project.file(
        "script.rhai",
        "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\" });
        gpu.load_model(gpu.miniature_model(\"olmoe\").path).extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));",
    );
    let text = shown(runpod::command(&project, &fake, &["plan", "script.rhai"]), &["plan"], "");
    assert!(text.contains("machine"), "{text}");
    let machine = fake.alive().remove(0);
    assert!(runpod::command(&project, &fake, &["gpus", "terminate", &machine]).status().unwrap().success());
}

#[test]
fn a_pipe_gets_every_column() {
    let text = project().run(&["run", "scripts/analyze.rhai"]).ok();
    assert!(text.contains("median % of positions") && !text.contains("not shown at this width"), "{text}");
}

#[test]
fn a_terminal_that_says_no_width_has_eighty_columns() {
    let project = project();
    let (code, lines) = at_terminal(project.command(&["run", "scripts/analyze.rhai"]), 0, "");
    assert_eq!((code, too_wide(&lines, 80)), (0, Vec::<&String>::new()));
}
