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
fn an_unfinished_pass_goes_on_or_is_refused_with_a_sentence() {
    let project = project(&[("unfinished_pass", "checkpoints/demo")]);
    let outcome = resumed(&project, "thresholds: [5.25], logits: true");
    let told = outcome.stderr.contains("going on after layer 2, from checkpoints/demo");
    // Another version of the program, or another machine's order of additions, begins anew and says so.
    assert!(told || outcome.stderr.contains("checkpoint checkpoints/demo is of"), "{}", outcome.stderr);
    assert!(outcome.ok().starts_with("4 [23, 5, 11, 17] "));
}

#[test]
fn an_unfinished_pass_of_an_older_version_stays() {
    for options in ["thresholds: [9.5]", "thresholds: [5.25], logits: true"] {
        let project = project(&[("unfinished_pass", "checkpoints/demo")]);
        let sample = std::fs::read(repository().join("tests/samples/unfinished_pass")).unwrap();
        assert_eq!(&sample[..24], b"outlier checkpoint  v 3\n");
        let outcome = resumed(&project, options);
        assert!(outcome.stderr.contains("is of another version of this program"), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("going on after"), "{}", outcome.stderr);
        assert!(outcome.ok().starts_with("4 [23, 5, 11, 17] "));
        assert_eq!(project.bytes("checkpoints/demo"), sample);
    }
}

#[test]
fn an_unfinished_pass_of_this_version_goes_on_to_the_same_bytes() {
    let stats = |project: &Project| {
        let outcome = project.script(&format!(
            "{MODEL}let acts = model.extract_layernorms(tokens, #{{ thresholds: [5.25], logits: true, checkpoint: \"checkpoints/demo\" }});
             save_results(\"again\", #{{ activations: acts, found: acts.detect_outliers() }});"
        ));
        let told = outcome.stderr.clone();
        outcome.ok();
        (project.bytes("results/again/activations.stats"), told)
    };
    let begun = project(&[("unfinished_pass_v4", "checkpoints/demo")]);
    assert_eq!(&begun.bytes("checkpoints/demo")[..24], b"outlier checkpoint  v 4\n");
    let (continued, told) = stats(&begun);
    // On a machine with another order of additions it begins anew, and says so.
    let goes_on = told.contains("going on after layer 2, from checkpoints/demo");
    assert!(goes_on || told.contains("checkpoint checkpoints/demo is of other work"), "{told}");
    let (whole, told) = stats(&project(&[]));
    assert!(!told.contains("going on after"), "{told}");
    assert!(continued == whole, "{} bytes, from the beginning {}", continued.len(), whole.len());
}

#[test]
fn a_record_of_the_first_version_is_refused_with_both_numbers() {
    let project = project(&[("demo", "results/demo")]);
    let mut record = project.bytes("results/demo/activations.stats");
    let mark = br#"\"stats_version\":2"#;
    let at = record.windows(mark.len()).position(|bytes| bytes == mark).expect("the record says its version");
    record[at + mark.len() - 1] = b'1';
    project.file("results/demo/activations.stats", &record);
    let outcome = project.script("print(load_results(\"demo\").found.num_features);");
    assert!(outcome.stderr.contains("version 1 of the format, this program reads 2"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn a_ledger_without_tasks_lists_its_machines() {
    let project = project(&[("gpus_without_tasks.sqlite", "results/gpus.sqlite")]);
    let said = project.run(&["gpus"]).ok();
    for row in ["pod1", "NVIDIA A40", "slurm:me@login:22", "outlier-a-3", "0.50"] {
        assert!(said.contains(row), "{row} is missing in\n{said}");
    }
}

#[test]
fn a_ledger_of_an_unknown_version_is_refused_with_a_sentence() {
    let project = project(&[]);
    std::fs::create_dir_all(project.path("results")).unwrap();
    let db = rusqlite::Connection::open(project.path("results/gpus.sqlite")).unwrap();
    db.execute_batch("CREATE TABLE machines (name TEXT PRIMARY KEY, run TEXT, provider TEXT, id TEXT)").unwrap();
    drop(db);
    let outcome = project.run(&["gpus"]);
    assert!(outcome.stderr.contains("has no column \"task\": another version wrote it"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the provider's page"), "{}", outcome.stderr);
}

#[test]
fn a_plan_of_another_version_is_not_compared() {
    let project = project(&[]);
    project.file("run.rhai", format!("{MODEL}model.extract_layernorms(tokens);"));
    project.run(&["plan", "run.rhai"]).ok();
    let plans = project.files("results/.plans");
    for other in ["{\"passes\": 3}", "{}", "[]", "not a plan"] {
        project.file(&format!("results/.plans/{}", plans[0]), other);
        let outcome = project.run(&["run", "run.rhai"]);
        assert!(!outcome.stderr.contains('→'), "{}", outcome.stderr);
        outcome.ok();
    }
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
