//! Tests that exit codes are those of docs/exit_codes.md, for every command and every way in which
//! it can fail.

use std::os::unix::fs::PermissionsExt;

use outlier::gpu::ledger::{Ledger, Purpose};
use outlier::gpu::{Offer, ProviderId};

use crate::interrupt::{ending, interrupt, start, wait_until_it_hears};
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
                (&[command, "--max-memory", "99999999999999999999GB", "fine.rhai"], USAGE),
                (&[command, "--max-memory", "0", "fine.rhai"], USAGE),
                (&[command, "--max-steps", "0", "fine.rhai"], USAGE),
                (&[command, "--max-minutes", "0", "fine.rhai"], USAGE),
                (&[command, "--max-minutes", "nan", "fine.rhai"], USAGE),
                (&[command], USAGE),
                (&[command, "absent.rhai"], FAILED),
                (&[command, "damaged.rhai"], FAILED),
            ],
        );
    }
}

/// What a script names and what it says itself is wrong in one way, what a file holds in another, whatever is wrong with it.
#[test]
fn the_content_of_a_file_that_is_named_fails_and_is_no_wrong_argument() {
    let project = project();
    project.file("ragged.json", "[[1, 2], [3]]").file("empty.json", "[]").file("none.json", "[[]]");
    project.file("negative.json", "[[1, -100]]").file("short.txt", "To be.").file("words.json", "[{\"a\": 1}]");
    let tensor = |dtype: &str, shape: &str, data: &[u8]| {
        let header = format!(
            "{{\"input_ids\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{}]}}}}",
            data.len()
        );
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    project.file("floats.safetensors", tensor("F32", "[1,2]", &[0; 8]));
    project.file("flat.safetensors", tensor("I64", "[1]", &[0; 8]));
    project.file("negative.safetensors", tensor("I64", "[1,1]", &(-100i64).to_le_bytes()));
    let ids = |path: &str| format!("load_tokens(#{{ ids: {path:?} }});");
    let text = |path: &str, more: &str| {
        format!(
            "load_tokens(#{{ text: {path:?}, model: load_model(\"model\"), num_sequences: 4, sequence_length: 64{more} }});"
        )
    };
    let cases = [
        (ids("ragged.json"), FAILED),
        (ids("empty.json"), FAILED),
        (ids("none.json"), FAILED),
        (ids("negative.json"), FAILED),
        (ids("floats.safetensors"), FAILED),
        (ids("flat.safetensors"), FAILED),
        (ids("negative.safetensors"), FAILED),
        (ids("missing.json"), FAILED),
        (text("short.txt", ""), FAILED),
        (text("short.txt", ", windows: \"documents\""), FAILED),
        (text("short.txt", ", separator: \"x\""), FAILED),
        (text("words.json", ", format: \"json\", column: \"b\""), FAILED),
        // What the script says itself.
        ("load_tokens(#{ ids: [[1, 2], [3]] });".to_string(), WRONG),
        ("load_tokens(#{ ids: [] });".to_string(), WRONG),
        ("load_tokens(#{ ids: [[-1]] });".to_string(), WRONG),
        (text("short.txt", ", overlap: 2.0"), WRONG),
    ];
    for (script, code) in cases {
        let outcome = project.script(&script);
        assert_eq!(outcome.code, code, "{script}\n{}", outcome.stderr);
    }
}

#[test]
fn a_script_that_ends_itself_says_how() {
    let project = project();
    let cases = [
        ("exit(3); print(1)", 3),
        ("fn f() { exit(7) } f(); print(1)", 7),
        ("try { exit(5) } catch (e) { print(1) }", 5),
        ("exit()", 0),
        ("exit(0)", 0),
        ("exit(\"bad\")", 0),
        ("exit(1000)", 125),
        ("exit(-1)", 0),
        ("exit(2.5)", 0),
        ("3", 0),
    ];
    for (script, code) in cases {
        assert_eq!(project.script(script).ends(code).stdout, "", "{script}");
    }
}

#[test]
fn a_signal_that_asks_to_stop_ends_as_ctrl_c_does() {
    let project = project();
    project.file("slow.rhai", "print(\"on\"); sleep(600)");
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let mut child = start(&project, &["run", "slow.rhai"]);
        let mut begun = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut begun).unwrap();
        assert_eq!(&begun, b"on\n");
        // SAFETY: it is a child of ours that has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        ending(child).ends(INTERRUPTED);
    }
    assert!(
        include_str!("../docs/exit_codes.md")
            .contains("| 130 | You pressed Ctrl-C, or the program got SIGTERM or SIGHUP")
    );
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
            (&["rethreshold", "results/none"], FAILED),
            (&["rethreshold", "results"], FAILED),
            (&["rethreshold", "results/damaged"], FAILED),
        ],
    );
}

#[test]
fn what_is_missing_ends_alike_wherever_it_is_named() {
    let project = project();
    let named = |call: &str| project.script(call).ends(FAILED);
    named("load_results(\"none\")");
    named("attach_gpu(\"nothing\")");
    named("load_model(\"nothing/at_all/here\")");
    for words in [
        &["rethreshold", "none"][..],
        &["rethreshold", "results/none"],
        // Results may be stored below it, and are not stored in it.
        &["rethreshold", "results"],
        &["repl", "--attach", "nothing"],
        &["gpus", "ssh", "nothing"],
        &["gpus", "logs", "nothing"],
        &["gpus", "terminate", "nothing"],
    ] {
        let outcome = project.run(words).ends(FAILED);
        assert!(outcome.stderr.contains("hint: "), "{words:?}: {}", outcome.stderr);
    }
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
            (&["gpus", "terminate", "nothing"], FAILED),
            (&["gpus", "no-such-action"], USAGE),
            (&["offers", "--provider", "nowhere"], WRONG),
            (&["offers"], FAILED),
            (&["offers", "--max-price", "cheap"], USAGE),
            (&["offers", "--max-price", "nan"], USAGE),
            (&["offers", "--max-price", "0"], USAGE),
            (&["offers", "--min-vram-gb", "inf"], USAGE),
            (&["offers", "--gpu-count", "0"], USAGE),
            (&["offers", "--gpu-count", "4294967297"], USAGE),
        ],
    );
    project.file("results/gpus.sqlite", "this is no database, and was never one");
    ends(&project, &[(&["gpus"], FAILED), (&["gpus", "--all"], FAILED), (&["gpus", "reap"], FAILED)]);
}

/// That its provider is not there does not mean that the machine is not.
#[test]
fn a_machine_that_is_known_and_cannot_be_asked_to_end_is_left() {
    let project = project();
    std::fs::create_dir_all(project.path("results")).unwrap();
    let ledger = Ledger::open(&project.path("results/gpus.sqlite")).unwrap();
    let offer = Offer {
        provider: ProviderId::Slurm(None),
        gpu: String::new(),
        gpu_count: 0,
        vram_gb: 0.0,
        cloud: String::new(),
        price: 0.0,
        stock: String::new(),
    };
    let purpose =
        Purpose { run: "a".to_string(), task: None, key_file: project.path("results/.keys/a"), keep_running: true };
    ledger.intend("outlier-a-1", &offer, &purpose).unwrap();
    ledger.created("outlier-a-1", "41", 0.0).unwrap();
    // No cluster here, whatever the machine that the tests run on has.
    let terminate = |id: &str| {
        let mut command = project.command(&["gpus", "terminate", id]);
        Outcome::of(command.env("HOME", project.path("home")).env("PATH", project.path("bin")).output().unwrap())
    };
    let outcome = terminate("outlier-a-1").ends(LEFT);
    assert!(outcome.stderr.contains("Slurm is not there"), "{}", outcome.stderr);
    // Whether there is a machine of another name is not known either.
    terminate("nothing").ends(LEFT);
}

#[test]
fn to_look_for_machines_makes_no_files() {
    let project = project();
    let before = project.files("");
    for words in [&["gpus"][..], &["gpus", "--all"], &["gpus", "logs", "nothing"], &["gpus", "terminate", "nothing"]] {
        project.run(words);
    }
    assert_eq!(project.files(""), before);
    assert!(!project.has("results"));
    // Nobody writes there, whoever it is.
    let outcome = Outcome::of(project.command(&["gpus"]).current_dir("/proc").output().unwrap());
    assert!(outcome.ok().contains("no machine of this project is known to be alive"));
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
    assert!(run(&["gpus", "--all"], None, silent).ok().contains("no provider was asked for machines of ours"));
    let said = run(&["gpus", "reap"], None, silent).ok();
    assert!(said.contains("nothing is left over that this project knows of; no provider was asked"), "{said}");
    // Whether there is such a machine is not known where one does not answer.
    run(&["gpus", "terminate", "nothing"], Some("rpa_KEY"), silent).ends(LEFT);
    run(&["gpus", "terminate", "nothing"], None, silent).ends(FAILED);
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
        let mut child = start(&project, words);
        // Whatever it has begun with by then.
        wait_until_it_hears(&mut child);
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

/// The system refuses, and no file, folder or disk is at fault.
#[test]
fn too_many_open_files_are_called_so() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    let script =
        "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: \"model/reference.safetensors\" }));
                  save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() });";
    project.file("script.rhai", script);
    let mut seen = 0;
    for limit in 4..=14 {
        let program = project.command(&[]).get_program().display().to_string();
        let mut command = project.command_of(std::path::Path::new("/bin/sh"), &["-c"]);
        command.arg(format!("ulimit -n {limit}; exec {program} run script.rhai"));
        let stderr = Outcome::of(command.output().unwrap()).stderr;
        if stderr.contains("error: ") && stderr.contains("Too many open files") {
            seen += 1;
            let hint = format!("this program may have {limit} files open at a time");
            assert!(stderr.contains(&hint) || !stderr.contains("hint: "), "{limit}: {stderr}");
        }
    }
    assert!(seen > 0, "some limit is too low");
}
