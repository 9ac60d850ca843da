//! Tests that a complete pass with a checkpoint is not lost when something fails afterwards, and
//! that a checkpoint of other work is left alone.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::interrupt::{INTERRUPTED, ending, interrupt, many_tokens, start, wait_until};
use crate::project::{FULL, Outcome, Project, stripped};

const CHECKPOINT: &str = "checkpoints/test";
const TAKEN_UP: &str = "note: the finished pass of ";
const SAVE: &str = "save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() });";
const TYPO: &str = "acts.detect_outliers(#{ threshold: 3 });";

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    project
}

/// A pass whose measurements are printed, and what follows.
fn pass(options: &str, then: &str) -> String {
    format!(
        "let tokens = load_tokens(#{{ ids: \"model/reference.safetensors\" }});
         let acts = load_model(\"model\").extract_layernorms(tokens, #{{ {options} }});
         print(acts.measurements.to_json());
         {then}"
    )
}

fn with_checkpoint(then: &str) -> String {
    pass(&format!("checkpoint: \"{CHECKPOINT}\""), then)
}

/// What was measured of the pass, from the first line.
fn measured(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.stdout.lines().next().unwrap()).unwrap()
}

/// The record of a run that nothing has happened to.
fn whole() -> Vec<u8> {
    let project = project();
    project.script(&pass("", SAVE)).ok();
    project.bytes("results/x/activations.stats")
}

#[test]
fn a_misspelt_option_behind_the_pass_does_not_cost_the_pass() {
    let project = project();
    let first = project.script(&with_checkpoint(TYPO)).ends(1);
    assert_eq!(project.files("checkpoints"), ["test"]);
    // Again and again, until it is saved.
    for (then, code) in [(TYPO, 1), (SAVE, 0)] {
        let again = project.script(&with_checkpoint(then)).ends(code);
        assert!(again.stderr.contains(&format!("{TAKEN_UP}model is taken up from {CHECKPOINT}")), "{}", again.stderr);
        // The measurements are those of the one pass that was.
        assert_eq!(measured(&again), measured(&first));
    }
    assert!(project.bytes("results/x/activations.stats") == whole());
    assert_eq!(project.files("checkpoints"), [""; 0]);
    // What is saved is not kept any longer: this is a pass of its own.
    let other = project.script(&with_checkpoint(SAVE)).ends(0);
    assert!(!other.stderr.contains(TAKEN_UP), "{}", other.stderr);
    assert_eq!(project.files("checkpoints"), [""; 0]);
}

#[test]
fn a_result_that_cannot_be_written_does_not_cost_the_pass() {
    let project = project();
    // In the place of the folder stands a file.
    project.file("results", "");
    let first = project.script(&with_checkpoint(SAVE));
    assert_ne!(first.code, 0);
    std::fs::remove_file(project.path("results")).unwrap();
    let again = project.script(&with_checkpoint(SAVE)).ends(0);
    assert!(again.stderr.contains(TAKEN_UP) && measured(&again) == measured(&first), "{}", again.stderr);
    assert!(project.bytes("results/x/activations.stats") == whole());
}

#[test]
fn ctrl_c_behind_the_pass_does_not_cost_the_pass() {
    let project = project();
    project.file("script.rhai", with_checkpoint("sleep(3600);"));
    let mut child = start(&project, &["run", "script.rhai"]);
    wait_until(&mut child, "the finished pass", || project.has(CHECKPOINT));
    interrupt(&child);
    ending(child).ends(INTERRUPTED);
    let again = project.script(&with_checkpoint(SAVE)).ends(0);
    assert!(again.stderr.contains(TAKEN_UP), "{}", again.stderr);
    assert!(project.bytes("results/x/activations.stats") == whole());
}

#[test]
fn a_script_that_ends_well_leaves_nothing_whether_it_saves_or_not() {
    for then in ["", SAVE, "print(acts.detect_outliers().num_features);"] {
        let project = project();
        project.script(&with_checkpoint(then)).ok();
        assert!(!project.has("checkpoints"), "{then}");
    }
    // What is saved is safe whatever follows.
    let project = project();
    project.script(&with_checkpoint(&format!("{SAVE}{TYPO}"))).ends(1);
    assert!(!project.has("checkpoints"));
    // A failure that the script catches and reports leaves what is not saved.
    let caught = format!("try {{ {TYPO} }} catch (error) {{ report_failure(\"x\", error); }}");
    let failed = project.script(&with_checkpoint(&caught));
    assert_ne!(failed.code, 0);
    assert_eq!(project.files("checkpoints"), ["test"]);
}

#[test]
fn a_finished_pass_is_taken_up_with_all_its_activations_or_not_at_all() {
    let options = format!("checkpoint: \"{CHECKPOINT}\", keep: \"full\", out: \"full\", logits: true");
    let project = project();
    let first = project.script(&pass(&options, TYPO)).ends(1);
    let all = project.bytes(&format!("full/{FULL}"));
    let again = project.script(&pass(&options, TYPO)).ends(1);
    assert!(again.stderr.contains(TAKEN_UP) && measured(&again) == measured(&first), "{}", again.stderr);
    assert!(project.bytes(&format!("full/{FULL}")) == all);
    // Another run has written its own.
    project.script(&pass("keep: \"full\", out: \"full\"", "")).ok();
    let again = project.script(&pass(&options, SAVE)).ends(0);
    assert!(
        again.stderr.contains("belongs to activations that are gone: starting at the first layer"),
        "{}",
        again.stderr
    );
    assert!(project.bytes(&format!("full/{FULL}")) == all);
    assert_eq!(project.files("checkpoints"), [""; 0]);
}

#[test]
fn a_finished_pass_that_is_damaged_is_made_again() {
    let project = project();
    project.script(&with_checkpoint(TYPO)).ends(1);
    let kept = project.bytes(CHECKPOINT);
    for at in [40, kept.len() / 2, kept.len() - 1] {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        project.file(CHECKPOINT, damaged);
        let again = project.script(&with_checkpoint(TYPO)).ends(1);
        assert!(again.stderr.contains(&format!("warning: checkpoint {CHECKPOINT} is not used (")), "{}", again.stderr);
        assert!(!again.stderr.contains(TAKEN_UP));
    }
    project.script(&with_checkpoint(SAVE)).ok();
    assert!(project.bytes("results/x/activations.stats") == whole());
}

/// Over a machine: the record comes here, nothing stays there.
#[test]
fn a_pass_on_another_machine_is_not_lost_either() {
    let project = project();
    let script = |then: &str| {
        let machine = "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"localhost\" });
                       let model = gpu.load_model(MODEL);";
        let machine = machine.replace("MODEL", &format!("{:?}", project.path("model").display().to_string()));
        with_checkpoint(then)
            .replace("load_model(\"model\")", "model")
            .replace("let tokens", &format!("{machine} let tokens"))
    };
    let run = |then: &str| {
        project.file("script.rhai", script(then));
        let mut command: Command = project.command(&["run", "--allow-commands", "script.rhai"]);
        command.env("HOME", project.path("home")).env("OUTLIER_WORKER", stripped());
        Outcome::of(command.output().unwrap())
    };
    let there = || {
        let files = project.files("home").into_iter();
        files.filter(|file| file.contains("checkpoints/")).collect::<Vec<_>>()
    };
    let first = run(TYPO).ends(1);
    assert_eq!((project.files("checkpoints"), there()), (vec!["test".to_string()], vec![]), "{}", first.stderr);
    let again = run(SAVE).ends(0);
    assert!(again.stderr.contains(TAKEN_UP), "{}", again.stderr);
    assert_eq!((project.files("checkpoints"), there()), (vec![], vec![]));
    // The model has another name there, and the same numbers.
    let plain = self::project();
    plain.script(&pass("", SAVE)).ok();
    let folds = |project: &Project| crate::checkpoint::read(&project.path("results/x/activations.stats"));
    assert!(folds(&project) == folds(&plain));
}

// ------------------------------------------------------------------------------------------------------- other work

/// Work on the tokens in this file, on a model of some layers, saved as `name`.
fn work(ids: &str, name: &str) -> String {
    format!(
        "let model = load_model(miniature_model(\"olmoe\").path);
         let acts = model.extract_layernorms(load_tokens(#{{ ids: \"{ids}\" }}), #{{ CHECKPOINT }});
         save_results(\"{name}\", #{{ activations: acts, found: acts.detect_outliers() }});
         print(acts.measurements.resumed_at_layer);"
    )
}

fn resuming(script: &str) -> String {
    script.replace("CHECKPOINT", &format!("checkpoint: \"{CHECKPOINT}\", checkpoint_layers: 1"))
}

/// Kills the work as soon as `ready`.
fn killed(project: &Project, script: &str, ready: impl Fn() -> bool) {
    project.file("script.rhai", resuming(script));
    let mut child = start(project, &["run", "script.rhai"]);
    wait_until(&mut child, "a checkpoint", ready);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn header(path: &Path) -> Option<Value> {
    let data = std::fs::read(path).ok()?;
    let length = u64::from_le_bytes(data.get(24..32)?.try_into().ok()?) as usize;
    serde_json::from_slice(data.get(32..32 + length)?).ok()
}

/// Sequences of 512 tokens, as a file.
fn tokens(project: &Project, file: &str, sequences: u32) {
    let ids: Vec<Vec<u32>> = (0..sequences).map(|s| (0..512).map(|t| (3 * s + t) % 256).collect()).collect();
    project.file(file, serde_json::to_string(&ids).unwrap());
}

#[test]
fn a_checkpoint_of_other_work_is_left_alone_and_both_go_on() {
    let project = Project::new();
    tokens(&project, "ids.json", 12);
    tokens(&project, "other.json", 10);
    let (one, other) = (work("ids.json", "one"), work("other.json", "other"));
    killed(&project, &one, || header(&project.path(CHECKPOINT)).is_some());
    let left = project.bytes(CHECKPOINT);
    killed(&project, &other, || project.files("checkpoints").iter().any(|file| file.len() == "test.".len() + 16));
    assert!(project.bytes(CHECKPOINT) == left, "it was written over");
    let beside: Vec<String> = project.files("checkpoints").into_iter().filter(|file| file != "test").collect();
    assert!(beside[0].starts_with("test."), "{beside:?}");
    // Each finds its own, in whatever order.
    let outcome = project.script(&resuming(&other)).ends(0);
    let from = format!(", from checkpoints/{}\n", &beside[0][..21]);
    assert!(outcome.stderr.contains(&from), "{from:?} in {}", outcome.stderr);
    assert!(project.bytes(CHECKPOINT) == left, "it was removed or written over");
    let outcome = project.script(&resuming(&one)).ends(0);
    assert!(outcome.stderr.contains(&format!(", from {CHECKPOINT}\n")), "{}", outcome.stderr);
    let is_whole = |file: &String| !file.ends_with(".partial");
    let left: Vec<String> = project.files("checkpoints").into_iter().filter(is_whole).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn work_that_begins_again_says_whose_checkpoint_stays() {
    let project = Project::new();
    tokens(&project, "ids.json", 12);
    killed(&project, &work("ids.json", "one"), || header(&project.path(CHECKPOINT)).is_some());
    let left = project.bytes(CHECKPOINT);
    project.file("other.json", "[[1, 2, 3]]");
    let outcome = project.script(&resuming(&work("other.json", "other"))).ends(0);
    let told = format!("warning: checkpoint {CHECKPOINT} is of other work (its tokens differ), which stays");
    assert!(outcome.stderr.contains(&told), "{}", outcome.stderr);
    assert!(project.bytes(CHECKPOINT) == left);
}

// -------------------------------------------------------------------------------------------------- before the pass

#[test]
fn a_perplexity_that_one_sequence_cannot_have_is_refused_before_the_pass() {
    let project = project();
    for (ids, message) in [("[[1, 2, 3]]", "a bootstrap needs 2 sequences"), ("[[1], [2]]", "sequences of 2 tokens")] {
        let script = format!("print(perplexity(load_model(\"model\"), load_tokens(#{{ ids: {ids} }})));");
        let outcome = project.script(&script).ends(1);
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("/s"), "it was run: {}", outcome.stderr);
    }
}

#[test]
fn ctrl_c_without_a_checkpoint_says_that_nothing_is_kept() {
    let project = Project::new();
    many_tokens(&project);
    project.file("script.rhai", work("ids.json", "one").replace("CHECKPOINT", "keep: \"full\", out: \"full\""));
    let mut child = start(&project, &["run", "script.rhai"]);
    wait_until(&mut child, "the first activations", || !project.files("full").is_empty());
    interrupt(&child);
    let outcome = ending(child).ends(INTERRUPTED);
    assert!(outcome.stderr.contains("nothing of this pass is kept; with `checkpoint: "), "{}", outcome.stderr);
}
