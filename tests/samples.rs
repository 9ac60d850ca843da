//! Files that this version has written, kept as samples: a later version reads them, or refuses them with a sentence, and never
//! takes them for something else. `tests/samples/README.md` says how they were made.

use crate::project::{Outcome, Project, repository};

/// The model of the samples, and its first two reference sequences.
const MODEL: &str = r#"
let model = load_model("model");
let all = load_tokens(#{ ids: "model/reference.safetensors" });
let tokens = load_tokens(#{ ids: all.ids.extract(0..2) });
"#;

/// What the samples say was found.
const FOUND: &str = "4 [23, 5, 11, 17] 52.737743 SYSTEMATIC\n";

fn project(samples: &[(&str, &str)]) -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    for (sample, place) in samples {
        project.copy(&format!("tests/samples/{sample}"), place);
    }
    project
}

/// Prints what was found as `FOUND` has it.
fn shown(found: &str) -> String {
    format!(
        "let found = {found};
         print(`${{found.num_features}} ${{found.features.map(|f| f.feature_dim)}} ${{found.max_magnitude}} \
         ${{found.classification}}`);"
    )
}

#[test]
fn a_stored_analysis_is_read() {
    let project = project(&[("demo", "results/demo")]);
    let stored = "let stored = load_results(\"demo\");";
    assert_eq!(project.script(&format!("{stored}{}", shown("stored.found"))).ok(), FOUND);
    // The record alone says the same.
    assert_eq!(project.script(&format!("{stored}{}", shown("stored.detect_outliers()"))).ok(), FOUND);
    let rest = "print(stored.settings.note); print(stored.activations.num_sequences); print(stored.intervals.args.n_resamples);
                print(stored.bootstrap_ci(#{ n_resamples: 100, seed: 3 }) == stored.intervals);";
    assert_eq!(project.script(&format!("{stored}{rest}")).ok(), "a sample\n2\n100\ntrue\n");
}

#[test]
fn a_stored_analysis_is_that_of_a_run_today() {
    let today = format!("{MODEL}let acts = model.extract_layernorms(tokens, #{{ thresholds: [5.25] }});");
    let said = project(&[]).script(&format!("{today}{}", shown("acts.detect_outliers()"))).ok();
    let without = |text: &str| text.split(' ').filter(|word| !word.contains('.')).collect::<Vec<_>>().join(" ");
    // Another processor may round the largest value otherwise.
    assert_eq!(without(&said), without(FOUND));
}

/// A run with the checkpoint of a pass that was complete.
fn resumed(project: &Project, options: &str) -> Outcome {
    let pass = format!("model.extract_layernorms(tokens, #{{ {options}, checkpoint: \"checkpoints/demo\" }})");
    project.script(&format!("{MODEL}let acts = {pass};{}", shown("acts.detect_outliers()")))
}

#[test]
fn a_finished_pass_is_taken_up_or_refused_with_a_sentence() {
    let project = project(&[("finished_pass", "checkpoints/demo")]);
    let outcome = resumed(&project, "thresholds: [5.25], logits: true");
    let taken_up = "the finished pass of model is taken up from checkpoints/demo: no weights are read";
    let told = outcome.stderr.contains(taken_up) || outcome.stderr.contains("checkpoints/demo");
    assert!(told, "{}", outcome.stderr);
    assert!(outcome.ok().starts_with("4 [23, 5, 11, 17] "));
}

#[test]
fn a_finished_pass_of_other_work_is_not_taken_for_this_one() {
    let project = project(&[("finished_pass", "checkpoints/demo")]);
    let outcome = resumed(&project, "thresholds: [9.5]");
    assert!(!outcome.stderr.contains("is taken up"), "{}", outcome.stderr);
    assert!(outcome.ok().starts_with("4 [23, 5, 11, 17] "));
    assert_eq!(
        project.bytes("checkpoints/demo"),
        std::fs::read(repository().join("tests/samples/finished_pass")).unwrap()
    );
}

#[test]
fn a_ledger_lists_its_machines() {
    let project = project(&[("gpus.sqlite", "results/gpus.sqlite")]);
    let said = project.run(&["gpus"]).ok();
    for row in ["pod1", "NVIDIA A40", "slurm:me@login:22", "created, kept running", "outlier-a-3", "sweep", "0.50"] {
        assert!(said.contains(row), "{row} is missing in\n{said}");
    }
    assert!(!said.contains("outlier-a-4"), "a machine that has ended costs nothing:\n{said}");
}

#[test]
fn a_plan_is_compared_with_its_run() {
    let project = project(&[]);
    project.file("run.rhai", format!("{MODEL}model.extract_layernorms(tokens);"));
    project.run(&["plan", "run.rhai"]).ok();
    let plans = project.files("results/.plans");
    assert_eq!(plans.len(), 1, "{plans:?}");
    project.copy("tests/samples/plan.json", &format!("results/.plans/{}", plans[0]));
    let outcome = project.run(&["run", "run.rhai"]);
    // The sample has its own numbers.
    assert!(outcome.stderr.contains("110.53 kB →"), "{}", outcome.stderr);
    outcome.ok();
}
