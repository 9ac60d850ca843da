//! Tests of common first mistakes, such as flags or files in the wrong place, and of the advice
//! that the program gives.

use std::os::unix::fs::PermissionsExt;

use crate::project::{Outcome, Project, stripped};
use crate::sshd::Sshd;

const LOCALHOST: &str = "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"localhost\" });\n";

fn on_localhost(project: &Project, script: &str) -> Outcome {
    project.file("script.rhai", format!("{LOCALHOST}{script}"));
    let mut command = project.command(&["run", "script.rhai"]);
    Outcome::of(command.env("HOME", project.path("home")).env("OUTLIER_WORKER", stripped()).output().unwrap())
}

#[test]
fn a_folder_to_read_that_is_not_there_is_told() {
    let project = Project::new();
    project.file("script.rhai", "print(1)").file("a_test.rhai", "fn test_a() {}").file("there/x", "");
    for (command, last) in [("run", "script.rhai"), ("plan", "script.rhai"), ("test", "a_test.rhai")] {
        for missing in ["/does/not/exist", "~/does/not/exist"] {
            let told = project.run(&[command, "--allow-read", missing, last]).ends(0).stderr;
            assert!(told.contains("note: --allow-read ") && told.contains("there is no such file or folder"), "{told}");
        }
        let told = project.run(&[command, "--allow-read", "there", "--allow-read", "there/x", last]).ends(0).stderr;
        assert!(!told.contains("no such file"), "{told}");
        // What is written may be made first.
        project.run(&[command, "--allow-write", "/does/not/exist", last]).ends(0);
    }
}

#[test]
fn keys_in_a_file_that_others_may_read_are_told_of() {
    let project = Project::new();
    project.file("script.rhai", "print(1)").file(".env", "HF_TOKEN=hf_abcdef\n");
    let run = |mode: u32| {
        std::fs::set_permissions(project.path(".env"), std::fs::Permissions::from_mode(mode)).unwrap();
        project.run(&["run", "script.rhai"]).ends(0).stderr
    };
    for mode in [0o644, 0o640, 0o604] {
        let told = run(mode);
        assert!(told.contains(".env holds keys, and others on this machine may read it: `chmod 600 .env`"), "{told}");
    }
    assert_eq!(run(0o600), "");
    project.file(".env", "# nothing\n");
    assert_eq!(run(0o644), "");
}

#[test]
fn flags_of_the_program_behind_the_script_are_known() {
    let project = Project::new();
    project.file("flags.rhai", "let f = args(#{ host: \"\" }); print(f.host);").file("none.rhai", "print(1)");
    project.file("own.rhai", "let f = args(#{ max_steps: 1 }); print(f.max_steps);");
    for script in ["flags.rhai", "none.rhai"] {
        for flag in [
            "--host-key",
            "--allow-read",
            "--allow-write",
            "--allow-commands",
            "--max-steps",
            "--max-minutes",
            "--max-memory",
        ] {
            for words in [vec![flag, "x"], vec!["--host-key=x"]] {
                let told = project.run(&[&["run", script], &words[..]].concat()).ends(2).stderr;
                let flag = words[0].split('=').next().unwrap();
                let expected = format!(
                    "`{flag}` is a flag of `outlier run`: write it before the script, `outlier run {flag} … SCRIPT`"
                );
                assert!(told.contains(&expected), "{told}");
            }
        }
    }
    // One that the script declares itself is the script's.
    assert_eq!(project.run(&["run", "own.rhai", "--max-steps", "5"]).ok(), "5\n");
}

#[test]
fn a_model_that_was_not_sent_is_looked_for_there() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "mymodel");
    for call in ["gpu.load_model(\"mymodel\")", "gpu.estimate_vram(\"mymodel\", #{})"] {
        let told = on_localhost(&project, call).ends(3).stderr;
        assert!(
            told.contains("error: on localhost: ") && told.contains("gpu.sync(#{ up: \"mymodel\" }) sends it"),
            "{told}"
        );
    }
    let told = on_localhost(&project, "gpu.load_model(\"nowhere/at_all/here\")").ends(3).stderr;
    assert!(told.contains("error: on localhost: ") && !told.contains("gpu.sync"), "{told}");
    on_localhost(&project, "gpu.sync(#{ up: \"mymodel\" }); gpu.load_model(\"mymodel\");").ends(0);
    let told = project.script("load_model(\"nowhere/at_all/here\")").ends(3).stderr;
    assert!(!told.contains("on localhost"), "{told}");
}

#[test]
fn what_is_no_model_is_not_looked_at_as_one() {
    let project = Project::new();
    project.file("web/config.json", "{\"port\": 80}").file("web/index.html", "x");
    project
        .file("analysis/config.json", "{}")
        .file("analysis/activations.stats", "x")
        .file("analysis/activations.safetensors", "x");
    project.file("broken/config.json", "{}").file("broken/model.safetensors", "x");
    let told = on_localhost(&project, "gpu.sync(#{ up: [\"web\", \"analysis\"] });").ends(0).stderr;
    assert!(!told.contains("cannot be analysed"), "{told}");
    let told = on_localhost(&project, "gpu.sync(#{ up: [\"broken\"] });").ends(0).stderr;
    assert!(told.contains("the model broken cannot be analysed as it is"), "{told}");
    let told = on_localhost(&project, "gpu.sync(#{ up: \"~/notes.txt\" });").ends(1).stderr;
    assert!(told.contains("\"~/notes.txt\" is not inside the project"), "{told}");
}

#[test]
fn a_host_key_that_has_changed_is_taken_with_a_word() {
    let sshd = Sshd::start();
    let other = Sshd::start();
    let project = Project::new();
    let public = std::fs::read_to_string(other.path("host.pub")).unwrap();
    let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    project.file("home/.ssh/known_hosts", format!("[127.0.0.1]:{} {public}\n", sshd.port));
    let (host, key) = (sshd.target(), sshd.key_file());
    let script = format!("provision_gpu(#{{ provider: \"ssh\", host: \"{host}\", key: \"{}\" }});", key.display());
    project.file("script.rhai", script);
    let run = |words: &[&str]| {
        let mut command = project.command(&[&["run"], words, &["script.rhai"]].concat());
        Outcome::of(command.env("HOME", project.path("home")).env("OUTLIER_WORKER", stripped()).output().unwrap())
    };
    run(&[]).ends(3);
    let told = run(&["--host-key", &sshd.fingerprint()]).ends(0).stderr;
    assert_eq!(told.matches("it is trusted because you name it").count(), 1, "{told}");
    assert!(told.contains("known_hosts, line 1,"), "{told}");
}

#[test]
fn a_provider_that_does_not_answer_has_asked_for_nothing() {
    let project = Project::new();
    let mut command = project.command(&["offers"]);
    command.env("RUNPOD_API_KEY", "rpa_KEY").env("OUTLIER_RUNPOD_URL", "http://127.0.0.1:9");
    let told = Outcome::of(command.output().unwrap()).ends(3).stderr;
    assert!(!told.contains("asks to wait") && told.contains("RunPod does not answer: it is asked again in"), "{told}");
}

/// Commands of Slurm on the path, and no cluster behind them.
#[test]
fn a_cluster_that_does_not_answer_failed() {
    let said = [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: fatal: Could not establish a configuration source",
        "sbatch: error: Batch job submission failed: Connection refused",
    ];
    for said in said {
        let project = Project::new();
        for name in ["sbatch", "squeue", "scontrol", "scancel", "srun"] {
            let text = if name == "sbatch" { format!("echo '{said}' >&2; exit 1") } else { "exit 0".to_string() };
            project.file(&format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
            let path = project.path(&format!("bin/{name}"));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        project.file("script.rhai", "provision_gpu(#{ provider: \"slurm\", gpu_count: 0, max_hours: 1 });");
        let mut command = project.command(&["run", "script.rhai"]);
        let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
        command.env("PATH", path).env("HOME", project.path("home")).env("OUTLIER_POLL_SECONDS", "0.05");
        let outcome = Outcome::of(command.output().unwrap()).ends(3);
        assert!(outcome.stderr.contains(said.rsplit(": ").next().unwrap()), "{}", outcome.stderr);
    }
}

#[test]
fn a_path_that_is_empty_is_told_as_that() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    let told = " is empty, where the path of a file is expected";
    let text = "load_tokens(#{ text: \"\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 4 })";
    for (script, what) in [
        (text, "load_tokens: `text`"),
        ("load_tokens(#{ ids: \" \" })", "load_tokens: `ids`"),
        ("check_text(\"\")", "check_text: the path"),
    ] {
        project.refuses(script, 1, &format!("{what}{told}"), "such as corpus.txt");
    }
}

/// The script that `outlier new` writes runs with any of its flags, and alone.
#[test]
fn a_new_script_measures_a_model_without_a_text() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "trained");
    project.run(&["new", "mine"]).ok();
    let printed = project.run(&["run", "scripts/mine.rhai", "--model", "trained", "--threshold", "3"]).ok();
    assert!(printed.contains(" with 95 % confidence), ") && printed.contains("results: results/mine"), "{printed}");
    assert!(printed.contains(" to ") && !printed.contains(".0 to "), "numbers of features are whole: {printed}");
    assert!(project.has("results/mine/text.txt"));
    let printed = project.run(&["run", "scripts/mine.rhai"]).ok();
    assert!(printed.contains("PROBABILISTIC"), "{printed}");
}

#[test]
fn a_short_text_in_place_of_a_path_is_shown_whole() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    let script = |text: &str| {
        format!(
            "load_tokens(#{{ text: \"{text}\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 4 }})"
        )
    };
    project.refuses(
        &script("A text to be measured."),
        1,
        "and \"A text to be measured.\" reads like a text itself",
        "texts: [\"…\"] takes texts themselves",
    );
    let long = "A text that is to be measured, and longer than a message has room for.";
    project.refuses(&script(long), 1, "and \"A text that is to be measured, and longe…\" reads like", "texts: [");
}
