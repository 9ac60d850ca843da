//! Tests of the command line: flags of scripts, help, exit codes, and the stream that each output
//! goes to.

use crate::project::Project;

const FLAGS: &str = r#"
let flags = args(#{
    models: #{ default: [], help: "numbers of the models to run" },
    dry_run: #{ default: false, help: "do nothing" },
    threshold: #{ default: 6.0, help: "|x| from which a value is a hit" },
    sequences: 16,
    text: "",
});
print(flags.to_json());
"#;

fn project() -> Project {
    let project = Project::new();
    project.file("flags.rhai", FLAGS).copy("tests/fixtures/llama", "model");
    project
}

#[test]
fn flags_are_read_by_the_type_of_their_default() {
    let project = project();
    let run = |words: &[&str]| project.run(&[&["run", "flags.rhai"], words].concat()).json();
    let defaults = run(&[]);
    assert_eq!(defaults.to_string(), r#"{"dry_run":false,"models":[],"sequences":16,"text":"","threshold":6.0}"#);
    let given = run(&["--models", "02", "07", "--dry-run", "--threshold", "7", "--sequences=4", "--text", "a b.txt"]);
    assert_eq!(
        given.to_string(),
        r#"{"dry_run":true,"models":["02","07"],"sequences":4,"text":"a b.txt","threshold":7.0}"#
    );
    assert_eq!(run(&["--threshold", "-1.5"])["threshold"], -1.5);
}

#[test]
fn wrong_flags_are_bad_usage() {
    let project = project();
    for (words, message, hint) in [
        (&["--model", "02"][..], "unknown flag `--model`", "did you mean `--models`?"),
        (&["--dryrun"], "unknown flag `--dryrun`", "did you mean `--dry-run`?"),
        (&["--zzz"], "unknown flag `--zzz`", "known are `--dry-run`"),
        (&["02"], "unexpected argument `02`", "--models"),
        (&["--threshold", "high"], "--threshold is `high`, expected a number", "--help"),
        (&["--sequences", "1.5"], "--sequences is `1.5`, expected a whole number", "--help"),
        (&["--sequences"], "--sequences needs a value", "--help"),
        (&["--models"], "--models needs at least one value", "--help"),
        (&["--dry-run=maybe"], "--dry-run is a switch", "--help"),
    ] {
        let outcome = project.run(&[&["run", "flags.rhai"], words].concat()).ends(2);
        assert!(outcome.stderr.contains(message) && outcome.stdout.is_empty(), "{words:?}: {}", outcome.stderr);
        let told = outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: "));
        assert!(told.is_some_and(|told| told.contains(hint)), "{words:?}: {hint:?} in {}", outcome.stderr);
    }
}

#[test]
fn a_script_lists_its_flags() {
    let project = project();
    for words in [["run", "flags.rhai", "--help"], ["run", "flags.rhai", "-h"]] {
        let text = project.run(&words).ok();
        assert!(text.starts_with("Usage: outlier run flags.rhai [flags]"), "{text}");
        assert!(text.contains("--models VALUE...") && text.contains("numbers of the models to run"), "{text}");
        assert!(text.contains("--dry-run ") && text.contains("do nothing") && text.contains("[default: 16]"), "{text}");
        assert!(!text.contains('{'), "the script ended with its help: {text}");
    }
}

#[test]
fn a_script_without_flags_takes_none() {
    let project = project();
    let outcome = project.file("plain.rhai", "print(1);").run(&["run", "plain.rhai", "--fast"]).ends(2);
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains("plain.rhai takes no flags"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: a script declares its flags with args("), "{}", outcome.stderr);
}

#[test]
fn the_program_says_what_it_is() {
    let project = Project::new();
    assert_eq!(project.run(&["--version"]).ok(), format!("outlier {}\n", env!("CARGO_PKG_VERSION")));
    let help = project.run(&["--help"]).ok();
    for part in ["run", "--quiet", "Exit codes: 0 done", "130 interrupted"] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn exit_codes() {
    let project = project();
    for (words, code) in [
        (&[][..], 2),
        (&["rum", "flags.rhai"], 2),
        (&["run"], 2),
        (&["--loud", "run", "flags.rhai"], 2),
        (&["run", "flags.rhai"], 0),
        (&["run", "no_such_script.rhai"], 2),
    ] {
        project.run(words).ends(code);
    }
    for (script, code) in [
        ("let x = ", 1),
        ("no_such_function()", 1),
        ("load_model(\"model\", #{ dtype: \"f64\" })", 1),
        ("throw #{ kind: \"usage\", message: \"no\" }", 2),
        ("load_model(\"nowhere\")", 3),
        ("report_failure(\"m\", \"it broke\"); print(\"on\")", 3),
        ("throw #{ kind: \"interrupted\", message: \"no\" }", 130),
        ("", 0),
    ] {
        project.script(script).ends(code);
    }
}

#[test]
fn a_missing_script_has_a_hint() {
    let stderr = Project::new().run(&["run", "missing.rhai"]).ends(2).stderr;
    assert!(stderr.contains("error: reading missing.rhai: No such file"), "{stderr}");
    assert!(stderr.contains("hint: give the path of a script"), "{stderr}");
}

#[test]
fn a_reported_failure_is_told_and_the_run_goes_on() {
    let script = r#"
        try { load_model("nowhere") } catch (e) { report_failure("first", e); }
        report_failure("second", "plain words");
        print("done");
    "#;
    let outcome = Project::new().script(script).ends(3);
    assert_eq!(outcome.stdout, "done\n");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert!(lines[0].starts_with("FAILED first: model \"nowhere\": no such folder"), "{lines:?}");
    assert!(lines[0].contains("(hint: give a folder"), "{lines:?}");
    assert_eq!(lines[1..], ["FAILED second: plain words"]);
}

const WORK: &str = r#"
log("a note");
let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));
print("data");
table([#{ layers: acts.num_layers }]);
"#;

#[test]
fn data_goes_to_stdout_and_progress_to_stderr() {
    let outcome = project().script(WORK).ends(0);
    assert!(outcome.stdout.starts_with("data\n") && outcome.stdout.contains("layers"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("note") && !outcome.stdout.contains("GB/s"), "{}", outcome.stdout);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines[0], "a note");
    assert!(lines[1].starts_with("note: device \"auto\": the CPU computes; no CUDA: "), "{lines:?}");
    assert!(
        lines[2].starts_with("model: 4/4 ") && lines[2].contains("GB/s") && lines[2].contains("tokens/s"),
        "{lines:?}"
    );
    assert!(!outcome.stderr.contains('\u{1b}'), "no terminal codes in a file: {:?}", outcome.stderr);
}

#[test]
fn quiet_leaves_data_and_failures() {
    let project = project();
    let loud = project.script(WORK).ok();
    for words in
        [&["--quiet", "run", "script.rhai"][..], &["run", "script.rhai", "--quiet"], &["run", "--quiet", "script.rhai"]]
    {
        let outcome = project.run(words).ends(0);
        assert_eq!((outcome.stdout, outcome.stderr.as_str()), (loud.clone(), ""), "{words:?}");
    }
    project.file("script.rhai", "report_failure(\"m\", \"broke\"); load_model(\"nowhere\")");
    let outcome = project.run(&["run", "script.rhai", "--quiet"]).ends(3);
    assert!(outcome.stderr.starts_with("FAILED m: broke\nerror: model \"nowhere\""), "{}", outcome.stderr);
}

#[test]
pub fn minutes_that_are_no_time_are_bad_usage() {
    let project = project();
    for minutes in ["nan", "inf", "-inf", "-1", "1e300", "1e400", "", "x", "99999999"] {
        let outcome = project.run(&["run", &format!("--max-minutes={minutes}"), "flags.rhai"]).ends(2);
        assert!(outcome.stderr.contains("--max-minutes"), "{minutes}: {}", outcome.stderr);
    }
    project.run(&["run", "--max-minutes", "0.5", "flags.rhai"]).ends(0);
}

#[test]
fn words_that_are_no_text_are_bad_usage() {
    use std::os::unix::ffi::OsStrExt;
    let project = project();
    let odd = std::ffi::OsStr::from_bytes(b"a\xff\xfeb");
    for words in [&["run", "flags.rhai"][..], &["doc"], &["new"], &["run", "flags.rhai", "--text"], &["--max-steps"]] {
        let outcome = crate::project::Outcome::of(project.command(words).arg(odd).output().unwrap());
        assert!(outcome.code == 2 || outcome.code == 1, "{words:?}: {} {}", outcome.code, outcome.stderr);
    }
    // A path may be any bytes.
    let outcome = crate::project::Outcome::of(project.command(&["run"]).arg(odd).output().unwrap()).ends(2);
    assert!(outcome.stderr.contains("reading a"), "{}", outcome.stderr);
}

/// What people type who mean a script.
#[test]
fn scripts_are_found_by_what_is_like_their_name() {
    let project = Project::new();
    project
        .file("scripts/sweep.rhai", "print(1)")
        .file("examples/01_hello.rhai", "print(1)")
        .file("mine.rhai", "print(1)");
    for (words, hint) in [
        (&["scripts/sweep.rhai"][..], "a script is started by `outlier run scripts/sweep.rhai`"),
        (&["sweep"], "a script is started by `outlier run scripts/sweep.rhai`"),
        (&["mine.rhai"], "a script is started by `outlier run mine.rhai`"),
        (&["nothing_like_it.rhai"], "a script is started by `outlier run SCRIPT`"),
        (&["run", "sweep"], "did you mean scripts/sweep.rhai?"),
        (&["run", "scripts/sweep"], "did you mean scripts/sweep.rhai?"),
        (&["run", "scripts/swep.rhai"], "did you mean scripts/sweep.rhai?"),
        (&["plan", "sweep.rhai"], "did you mean scripts/sweep.rhai?"),
        (&["check", "hello"], "did you mean examples/01_hello.rhai?"),
        (&["run", "examples/hello.rhai"], "did you mean examples/01_hello.rhai?"),
        (&["run", "zebra.rhai"], "give the path of a script"),
    ] {
        let outcome = project.run(words).ends(2);
        assert!(outcome.stderr.contains(&format!("hint: {hint}")), "{words:?}: {}", outcome.stderr);
    }
    // A command that is none and no script, as before.
    let outcome = project.run(&["zebra"]).ends(2);
    assert!(!outcome.stderr.contains("hint: "), "{}", outcome.stderr);
}

#[test]
fn a_name_that_many_begin_with_lists_them() {
    let project = Project::new();
    let outcome = project.run(&["doc", "load"]).ends(1);
    let hint = "hint: did you mean `load_model`, `load_tokens` or `load_results`?";
    assert!(outcome.stderr.contains(hint), "{}", outcome.stderr);
    for (word, name) in [("outliers", "detect_outliers"), ("upload_", "upload"), ("thresold", "thresholds")] {
        let outcome = project.run(&["doc", word]).ends(1);
        assert!(outcome.stderr.contains(&format!("`{name}`")), "{word}: {}", outcome.stderr);
    }
}

#[test]
fn results_that_are_not_there_are_named_by_those_that_are() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let nothing = project.run(&["rethreshold", "olmoe"]).ends(3);
    assert!(nothing.stderr.contains("hint: nothing is stored in results: save_results stores"), "{}", nothing.stderr);
    let script = "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));
        for name in [\"olmoe_small\", \"olmoe_large\", \"deep/first\"] {
            save_results(name, #{ activations: acts, found: acts.detect_outliers() });
        }";
    project.script(script).ok();
    for (name, hint) in [
        ("olmoe_smal", "did you mean `olmoe_small`?"),
        ("results/olmoe_smal", "did you mean `olmoe_small`?"),
        ("olmoe", "did you mean `olmoe_large` or `olmoe_small`?"),
        ("zebra", "stored are deep/first, olmoe_large, olmoe_small"),
    ] {
        let outcome = project.run(&["rethreshold", name]).ends(3);
        assert!(outcome.stderr.contains(&format!("hint: {hint}")), "{name}: {}", outcome.stderr);
        let outcome = project.script(&format!("load_results(\"{name}\")")).ends(3);
        assert!(outcome.stderr.contains(&format!("hint: {hint}")), "{name}: {}", outcome.stderr);
    }
}
