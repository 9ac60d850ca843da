//! Exit codes are those of docs/exit_codes.md: for every command, and every way in which it can fail.

use std::os::unix::fs::PermissionsExt;

use crate::interrupt::{ending, interrupt, start};
use crate::project::{Outcome, Project, program};

const DONE: i32 = 0;
const WRONG: i32 = 1;
const USAGE: i32 = 2;
const FAILED: i32 = 3;
const LEFT: i32 = 4;
const INTERRUPTED: i32 = 130;

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

/// A project with one stored analysis.
fn stored() -> Project {
    let project = project();
    let script = "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));
                  save_results(\"one\", #{ activations: acts, found: acts.detect_outliers() });";
    project.script(script).ok();
    project
}

#[track_caller]
fn ends(project: &Project, cases: &[(&[&str], i32)]) {
    for (words, code) in cases {
        let outcome = project.run(words);
        assert_eq!(outcome.code, *code, "{words:?}\n{}{}", outcome.stdout, outcome.stderr);
        assert!(*code == DONE || outcome.stderr.contains("error"), "{words:?} says why: {}", outcome.stderr);
    }
}

/// A folder in which nobody may write; not even root where it is a file of the system.
const UNWRITABLE: &str = "/proc/self";

#[test]
fn run_and_plan() {
    let project = project();
    project.file("wrong.rhai", "nothing()").file("open.rhai", "let x = (").file("flags.rhai", "args(#{ a: 1 });");
    project.file("absent.rhai", "load_model(\"nowhere/at_all/here\")").file("fine.rhai", "print(1)");
    project
        .file("option.rhai", "load_model(\"model\", #{ chunk_layers: 0 })")
        .file("latin1.rhai", b"print(\"caf\xe9\");");
    project.file("damaged/config.json", "{").file("damaged.rhai", "load_model(\"damaged\")");
    for command in ["run", "plan"] {
        ends(
            &project,
            &[
                (&[command, "fine.rhai"], DONE),
                (&[command, "wrong.rhai"], WRONG),
                (&[command, "open.rhai"], WRONG),
                (&[command, "option.rhai"], WRONG),
                (&[command, "latin1.rhai"], WRONG),
                (&[command, "missing.rhai"], USAGE),
                (&[command, "."], USAGE),
                (&[command, "flags.rhai", "--b"], USAGE),
                (&[command, "--no-such-flag", "fine.rhai"], USAGE),
                (&[command], USAGE),
                (&[command, "absent.rhai"], FAILED),
                (&[command, "damaged.rhai"], FAILED),
            ],
        );
    }
}

#[test]
fn check_and_test() {
    let project = project();
    project.file("fine.rhai", "print(1)").file("wrong.rhai", "nothing()");
    project.file("good_test.rhai", "fn test_a() { assert(true); }").file("empty/x.rhai", "");
    project.file("bad/bad_test.rhai", "fn test_a() { assert(false); }").file("open/a_test.rhai", "fn test_a() {");
    project.file("lost/a_test.rhai", "fn test_a() { load_model(\"/nowhere/at/all\"); }");
    ends(
        &project,
        &[
            (&["check", "fine.rhai"], DONE),
            (&["check", "missing.rhai"], USAGE),
            (&["check"], USAGE),
            (&["test", "good_test.rhai"], DONE),
            (&["test", "open"], WRONG),
            (&["test", "missing"], USAGE),
            (&["test", "empty"], WRONG),
        ],
    );
    for words in [["check", "wrong.rhai"], ["test", "bad"], ["test", "lost"]] {
        project.run(&words).ends(WRONG);
    }
}

#[test]
fn doc_and_new_and_doctor() {
    let project = project();
    project.file("scripts/there.rhai", "");
    let nowhere = format!("{UNWRITABLE}/definitions");
    ends(
        &project,
        &[
            (&["doc"], DONE),
            (&["doc", "load_model"], DONE),
            (&["doc", "no_such_primitive"], WRONG),
            (&["doc", "dettmers::no_such_function"], WRONG),
            (&["doc", "--definitions", &nowhere], FAILED),
            (&["doctor"], DONE),
            (&["new", "fresh"], DONE),
            (&["new", "there"], WRONG),
            (&["new", "not a name"], WRONG),
            (&["new"], USAGE),
        ],
    );
    // A disk that takes nothing.
    let full = Project::new();
    std::os::unix::fs::symlink(UNWRITABLE, full.path("scripts")).unwrap();
    ends(&full, &[(&["new", "fresh"], FAILED)]);
}

#[test]
fn rethreshold() {
    let project = stored();
    project.file("results/damaged/final_analysis_results.json", "{");
    ends(
        &project,
        &[
            (&["rethreshold", "results/one"], DONE),
            (&["rethreshold", "one", "--json"], DONE),
            (&["rethreshold", "one", "--magnitude", "-1"], WRONG),
            (&["rethreshold", "one", "--layers", "25"], WRONG),
            (&["rethreshold", "one", "--magnitude", "high"], USAGE),
            (&["rethreshold"], USAGE),
            (&["rethreshold", "none"], FAILED),
            (&["rethreshold", "results/damaged"], FAILED),
        ],
    );
}

#[test]
fn gpus_and_offers() {
    let project = project();
    ends(
        &project,
        &[
            (&["gpus"], DONE),
            (&["gpus", "ssh", "nothing"], FAILED),
            (&["gpus", "logs", "nothing"], FAILED),
            (&["gpus", "terminate"], USAGE),
            (&["gpus", "terminate", "nothing"], LEFT),
            (&["gpus", "no-such-action"], USAGE),
            (&["offers", "--provider", "nowhere"], WRONG),
            (&["offers"], FAILED),
            (&["offers", "--max-price", "cheap"], USAGE),
        ],
    );
    project.file("results/gpus.sqlite", "this is no database, and was never one");
    ends(&project, &[(&["gpus"], FAILED), (&["gpus", "--all"], FAILED), (&["gpus", "reap"], FAILED)]);
}

/// All that is asked for is all that there is, or the exit code says otherwise.
#[test]
fn gpus_of_a_provider_that_does_not_answer() {
    let project = project();
    let run = |words: &[&str], key: Option<&str>, url: &str| {
        let mut command = project.command(words);
        command.env_remove("RUNPOD_API_KEY").env("OUTLIER_RUNPOD_URL", url).env("OUTLIER_POLL_SECONDS", "0.1");
        // No cluster here, whatever the machine that the tests run on has.
        command.env("HOME", project.path("home")).env("PATH", project.path("bin"));
        key.map(|key| command.env("RUNPOD_API_KEY", key));
        Outcome::of(command.output().unwrap())
    };
    let silent = "http://127.0.0.1:9";
    // Who has no account there has no machines there.
    assert!(run(&["gpus", "--all"], None, silent).ok().contains("no provider lists a machine of ours"));
    let outcome = run(&["gpus", "--all"], Some("rpa_KEY"), silent).ends(FAILED);
    assert!(outcome.stderr.contains("runpod: left out: RunPod does not answer"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("no provider that answers lists a machine of ours"), "{}", outcome.stdout);
    // Nor may a key go where all can read it.
    run(&["gpus", "--all"], Some("rpa_KEY"), "http://203.0.113.7").ends(FAILED);
    // This project has no machine anywhere, so that none of it is left.
    run(&["gpus", "reap"], Some("rpa_KEY"), silent).ok();
    assert!(run(&["gpus", "reap"], None, silent).ok().contains("nothing is left over"));
}

#[test]
fn repl() {
    let project = project();
    let piped = |input: &str| {
        project.file("input", input);
        let mut command = project.command(&["repl"]);
        command.stdin(std::fs::File::open(project.path("input")).unwrap());
        Outcome::of(command.output().unwrap())
    };
    piped("1 + 1\n").ends(DONE);
    // It goes on behind an error, and tells of it at the end.
    assert_eq!(piped("nothing()\n1 + 1\n").ends(FAILED).stdout, "2\n");
    piped("load_model(\"/nowhere/at/all\")\n").ends(FAILED);
    project.run(&["repl", "--attach", "nothing"]).ends(FAILED);
    project.run(&["repl", "--no-such-flag"]).ends(USAGE);
}

#[test]
fn ctrl_c_ends_every_command_that_takes_time() {
    let project = project();
    project.file("slow.rhai", "print(\"on\"); sleep(600)").file("slow/a_test.rhai", "fn test_a() { while true { } }");
    for words in [&["run", "slow.rhai"][..], &["test", "slow"]] {
        let child = start(&project, words);
        // Whatever it has begun with by now.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        interrupt(&child);
        ending(child).ends(INTERRUPTED);
    }
}

/// The first line of a script names what runs it.
#[test]
fn a_script_that_is_started_itself() {
    let project = Project::new();
    let script = "#!/usr/bin/env -S outlier run\nlet flags = args(#{ n: 1 });\nprint(flags.n + 1);\n";
    project.file("own", script);
    std::fs::set_permissions(project.path("own"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = program().parent().unwrap();
    let bare = project.command(&[]);
    let mut command = std::process::Command::new(project.path("own"));
    command.args(["--n", "41"]).current_dir(project.path("")).envs(bare.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()));
    assert_eq!(Outcome::of(command.output().unwrap()).ok(), "42\n");
}
