//! Tests of output that cannot be written, because the reader has left or the disk is full. The
//! measurements are saved nevertheless.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::project::{FINAL, Outcome, Project};

const FULL: &str = "/dev/full";

/// Analyses a small model and saves it, and prints before and after.
fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model").file(
        "script.rhai",
        r#"
        for i in 0..2000 { print(`line ${i} of many that come before anything is measured`); }
        let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3], [4, 5, 6]] }));
        save_results("x", #{ activations: acts, found: acts.detect_outliers() });
        table([#{ saved: true }]);
        print("done");
        "#,
    );
    project
}

fn run(project: &Project, words: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Outcome {
    Outcome::of(project.command(words).stdout(stdout).stderr(stderr).spawn().unwrap().wait_with_output().unwrap())
}

/// A pipe whose reader has left.
fn nobody() -> Stdio {
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    pipe.into()
}

fn full() -> File {
    File::options().write(true).open(FULL).unwrap()
}

#[test]
pub fn a_reader_that_leaves_costs_no_result() {
    let project = project();
    let outcome = run(&project, &["run", "script.rhai"], nobody(), Stdio::piped()).ends(0);
    assert!(!outcome.stderr.contains("stdout"), "{}", outcome.stderr);
    assert!(project.has(&format!("results/x/{FINAL}")), "{}", outcome.stderr);
}

#[test]
pub fn a_full_stdout_costs_no_result_and_is_told_once() {
    let project = project();
    let outcome = run(&project, &["run", "script.rhai"], full(), Stdio::piped()).ends(3);
    assert!(project.has(&format!("results/x/{FINAL}")), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("writing to stdout: No space left").count(), 1, "{}", outcome.stderr);
}

#[test]
fn stderr_that_cannot_be_written_costs_no_result() {
    for (stderr, code) in [(nobody(), 0), (Stdio::from(full()), 3)] {
        let project = project();
        assert!(run(&project, &["run", "script.rhai"], Stdio::piped(), stderr).ends(code).stdout.ends_with("done\n"));
        assert!(project.has(&format!("results/x/{FINAL}")));
    }
    // Neither of them.
    let project = project();
    run(&project, &["run", "script.rhai"], nobody(), nobody()).ends(0);
    assert!(project.has(&format!("results/x/{FINAL}")));
}

#[test]
fn every_command_survives_a_stdout_that_cannot_be_written() {
    let project = project();
    project.file("a_test.rhai", "fn test_a() { assert(true); }");
    run(&project, &["run", "script.rhai"], Stdio::piped(), Stdio::piped()).ends(0);
    for words in [
        &["doc"][..],
        &["doc", "--markdown"],
        &["doc", "--definitions", "out"],
        &["doctor"],
        &["gpus"],
        &["check", "script.rhai"],
        &["plan", "script.rhai"],
        &["test", "."],
        &["rethreshold", "results/x", "--json"],
        &["rethreshold", "results/x"],
        &["--help"],
        &["--version"],
    ] {
        let outcome = run(&project, words, nobody(), Stdio::piped()).ends(0);
        assert!(!outcome.stderr.contains("stdout"), "{words:?}: {}", outcome.stderr);
        let outcome = run(&project, words, full(), Stdio::piped()).ends(3);
        assert!(outcome.stderr.contains("writing to stdout: No space left"), "{words:?}: {}", outcome.stderr);
    }
    run(&project, &["nonsense"], Stdio::piped(), nobody()).ends(2);
    run(&project, &["new", "x"], nobody(), Stdio::piped()).ends(0);
    run(&project, &["offers", "--provider", "nowhere"], nobody(), nobody());
}

/// A limit of the shell is an error of writing like a full disk.
#[test]
fn a_file_that_may_not_grow_ends_no_run() {
    let project = project();
    let line = r#"ulimit -f 8; exec "$0" run script.rhai > out.txt"#;
    let words = project.command(&[]);
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).arg(words.get_program()).current_dir(project.path("")).stdin(Stdio::null());
    let outcome = Outcome::of(shell.output().unwrap()).ends(3);
    assert!(outcome.stderr.contains("writing to stdout"), "{}", outcome.stderr);
}

/// Everything that is shown goes through one place.
#[test]
fn nothing_else_writes_to_the_terminal() {
    let mut folders = vec![crate::project::repository().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let writes = ["println!(", "print!(", "stdout().write", "stderr().write"];
                let own = path.ends_with("src/terminal.rs");
                assert!(own || !writes.iter().any(|mark| text.contains(mark)), "{}", path.display());
            }
        }
    }
}
