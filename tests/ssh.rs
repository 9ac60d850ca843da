//! Tests of work on a machine over SSH: a real OpenSSH server on loopback with a home folder of its
//! own, to which the program is sent.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::interrupt::wait_until;
use crate::project::{FINAL, Outcome, Project, stripped};
use crate::sshd::Sshd;

/// Options of provision_gpu for this server.
fn options(sshd: &Sshd) -> String {
    let (host, key, fingerprint) = (sshd.target(), sshd.key_file(), sshd.fingerprint());
    format!("provider: \"ssh\", host: \"{host}\", key: \"{}\", fingerprint: \"{fingerprint}\"", key.display())
}

/// A project whose user knows this server.
pub fn project(sshd: &Sshd) -> Project {
    Project::trusting(&sshd.fingerprint())
}

pub fn provision(sshd: &Sshd) -> String {
    format!("let gpu = provision_gpu(#{{ {} }});\n", options(sshd))
}

/// An analysis on `gpu`, saved as `name`.
pub fn analysis(miniature: &str, name: &str) -> String {
    format!(
        r#"
        let made = gpu.miniature_model("{miniature}");
        let model = gpu.load_model(made.path);
        let tokens = load_tokens(#{{ text: made.text, model: model, num_sequences: 4, sequence_length: 64 }});
        let acts = model.extract_layernorms(tokens);
        let found = acts.detect_outliers();
        save_results("{name}", #{{ activations: acts, found: found, intervals: acts.bootstrap_ci() }});
        "#
    )
}

/// The final results without what may differ between machines.
pub fn final_results(project: &Project, name: &str) -> Value {
    let mut whole = project.json(&format!("results/{name}/{FINAL}"));
    for key in ["measurements", "provenance"] {
        assert!(whole.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    whole
}

/// What two analyses found is the same to the byte.
#[track_caller]
pub fn same(one: &Project, other: &Project, name: &str) {
    for file in one.files(&format!("results/{name}")) {
        let path = format!("results/{name}/{file}");
        match file.as_str() {
            FINAL => assert_eq!(final_results(one, name), final_results(other, name)),
            // It names the folder that the model was in.
            "config.json" | "activations.stats" => continue,
            _ => assert!(one.bytes(&path) == other.bytes(&path), "{path} differs"),
        }
    }
}

#[test]
fn the_same_as_here() {
    let sshd = Sshd::start();
    let (here, there) = (Project::new(), project(&sshd));
    here.script(&format!("let gpu = provision_gpu();\n{}", analysis("gpt_oss", "x"))).ok();
    there.script(&format!("{}{}", provision(&sshd), analysis("gpt_oss", "x"))).ok();
    same(&here, &there, "x");
    assert!(!there.has("results/miniature_models"), "it was made there");
    let sent = || -> Vec<_> {
        let programs = std::fs::read_dir(sshd.home().join(".outlier/bin")).unwrap();
        programs.map(|entry| entry.unwrap().path().join("outlier").metadata().unwrap().modified().unwrap()).collect()
    };
    let first = sent();
    assert_eq!(first.len(), 1);
    // A second time the program is there, and nothing of the first run is.
    there.script(&provision(&sshd)).ends(0);
    assert_eq!(sent(), first);
    // The worker ends with the run.
    let begin = Instant::now();
    while sshd.processes().iter().any(|process| process.contains("worker serve")) {
        assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", sshd.processes());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A model that cannot be analysed is told of before it is sent, and refused by the machine before it reads weights.
#[test]
fn a_model_that_cannot_be_read_is_told_of_before_it_is_sent() {
    let sshd = Sshd::start();
    let project = project(&sshd);
    project.copy("tests/fixtures/llama", "model");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    project.file("model/model-00002-of-00002.safetensors", pointer);
    let script = format!("{}gpu.sync(#{{ up: [\"model\"] }});\ngpu.load_model(\"model\");", provision(&sshd));
    let stderr = project.script(&script).ends(3).stderr;
    let told = "a Git LFS pointer to the file of 12345 bytes, which has not been fetched";
    let warning = stderr.find("warning: sync: the model model cannot be analysed as it is: ");
    assert!(warning.is_some_and(|at| stderr[at..].lines().next().unwrap().contains(told)), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("error: ") && line.contains(told)), "{stderr}");
    assert!(!stderr.contains("damaged"), "{stderr}");
}

#[test]
fn files_go_there_and_back() {
    let sshd = Sshd::start();
    let project = project(&sshd);
    let large = vec![7u8; 9 << 20];
    project.file("data/a.txt", "one").file("data/deep/b.bin", &large).file(".env", "HF_TOKEN=hf_x");
    project.file("data/.env", "SECRET=1").file("data/id_ed25519", "key");
    let script = format!(
        r#"{}
        let first = sync(gpu, #{{ up: ["data"] }});
        let second = gpu.sync(#{{ up: ["data"] }});
        let listed = gpu.run_command("find . -type f | sort; echo done >&2; exit 3");
        gpu.run_command("mkdir -p out/sub && cp data/deep/b.bin out/sub/c.bin && echo two > out/d.txt");
        let third = gpu.sync(#{{ down: ["out"] }});
        let fourth = gpu.sync(#{{ down: ["out/*.txt"] }});
        gpu.download("out/d.txt", "e.txt");
        gpu.upload("e.txt", "f.txt");
        print(#{{ first: first, second: second, third: third, fourth: fourth, code: listed.code, out: listed.out, err: listed.err,
            f: gpu.run_command("cat f.txt").out }}.to_json());
        "#,
        provision(&sshd)
    );
    project.file("script.rhai", script);
    let said = project.run(&["run", "--allow-commands", "script.rhai"]).json();
    let counts = |step: &str| {
        let number = |key: &str| said[step][key].as_u64().unwrap();
        (number("files_sent"), number("files_received"), number("unchanged"))
    };
    assert_eq!(counts("first"), (2, 0, 0));
    assert_eq!(counts("second"), (0, 0, 2), "only what changed travels");
    assert_eq!(counts("third"), (0, 2, 0));
    assert_eq!(counts("fourth"), (0, 0, 1));
    assert_eq!((&said["code"], said["err"].as_str()), (&Value::from(3), Some("done\n")));
    assert_eq!(said["out"], "./data/a.txt\n./data/deep/b.bin\n", "secrets stay here");
    assert_eq!(said["f"], "two\n");
    assert!(project.bytes("out/sub/c.bin") == large);
}

#[test]
fn what_leads_out_of_the_project_is_refused() {
    let sshd = Sshd::start();
    let sync = |up: &str| format!("{}gpu.sync(#{{ up: [\"{up}\"] }});", provision(&sshd));
    let project = project(&sshd);
    project.refuses(&sync("../x"), 1, "is not inside the project", "only files below the folder");
    project.refuses(&sync("/etc/passwd"), 1, "is not inside the project", "only files below the folder");
    std::os::unix::fs::symlink("/etc", project.path("link")).unwrap();
    project.refuses(&sync("link"), 1, "leads out of the project", "copy what it leads to");
    project.refuses(&sync("results"), 3, "nothing to send at \"results\"", "are never sent");
}

/// The whole miniature sweep, on one machine after the other and on this one: the same results, and no worker is left.
#[test]
fn the_sweep() {
    let sshd = Sshd::start();
    let (here, there) = (Project::new(), Project::new());
    let key = sshd.key_file().display().to_string();
    let (target, fingerprint) = (sshd.target(), sshd.fingerprint());
    let far = ["--provider", "ssh", "--host", &target, "--key", &key, "--fingerprint", &fingerprint, "--max", "2"];
    let sweep = |project: &Project, more: &[&str]| {
        project.copy("scripts", "scripts");
        let few = ["run", "scripts/sweep.rhai", "--miniature", "--num-sequences", "2", "--sequence-length", "64"];
        let mut command = project.command(&[&few[..], more].concat());
        Outcome::of(command.env("OUTLIER_WORKER", stripped()).output().unwrap()).ends(0)
    };
    sweep(&here, &[]);
    let outcome = sweep(&there, &far);
    let results = |project: &Project| -> Vec<String> {
        let files = project.files("results").into_iter();
        files.filter_map(|file| Some(file.strip_suffix(FINAL)?.trim_end_matches('/').to_string())).collect()
    };
    assert_eq!(results(&there).len(), 7, "{}", outcome.stderr);
    for name in results(&here) {
        same(&here, &there, &name);
    }
}

/// The layers of the log of a piece of work, in order.
pub fn steps(project: &Project, log: &str) -> Vec<u64> {
    let step = |line: &str| line.rsplit_once(": ")?.1.split_once('/')?.0.parse().ok();
    project.text(&format!("logs/{log}.log")).lines().filter_map(step).collect()
}

#[test]
fn a_cut_connection_does_not_cost_a_layer() {
    let mut sshd = Sshd::start();
    let project = project(&sshd);
    let script = format!(
        r#"{}
        let made = gpu.miniature_model("qwen3_next");
        let model = gpu.load_model(made.path);
        let tokens = load_tokens(#{{ text: made.text, model: model, num_sequences: 32, sequence_length: 384, overlap: 0.9 }});
        print("extracting");
        with_log("work", || extract_layernorms(model, tokens));
        print("done");
        "#,
        provision(&sshd)
    );
    project.file("script.rhai", script);
    let mut command = project.command(&["run", "script.rhai"]);
    command.env("OUTLIER_WORKER", stripped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_until(&mut child, "two layers", || project.has("logs/work.log") && steps(&project, "work").len() > 1);
    sshd.cut();
    std::thread::sleep(Duration::from_millis(700));
    sshd.up();
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    assert!(outcome.stdout.ends_with("done\n"), "{}", outcome.stdout);
    assert!(
        outcome.stderr.contains("connecting again") && outcome.stderr.contains("connected again"),
        "{}",
        outcome.stderr
    );
    let steps = steps(&project, "work");
    let whole: Vec<u64> = (1..=*steps.last().unwrap()).collect();
    assert_eq!(steps, whole, "every layer was told once: none was computed again");
}

#[test]
fn strangers_are_told_nothing() {
    let sshd = Sshd::start();
    let project = project(&sshd);
    let other = Sshd::start();
    let with = |from: &str, to: &str| {
        assert!(options(&sshd).contains(from));
        format!("provision_gpu(#{{ {} }});", options(&sshd).replace(from, to))
    };
    let wrong = with(&sshd.fingerprint(), &other.fingerprint());
    project.refuses(&wrong, 3, "its host key is", "nothing was sent to it");
    let unknown = with(&format!(", fingerprint: \"{}\"", sshd.fingerprint()), ", known_hosts: \"none\"");
    project.refuses(&unknown, 3, "its host key is", "log in once with ssh and compare the fingerprint");
    let key = with(&sshd.key_file().display().to_string(), &other.key_file().display().to_string());
    project.refuses(&key, 3, "is not accepted for", "authorized_keys");
    let missing = with(&sshd.key_file().display().to_string(), "no/such/key");
    project.refuses(&missing, 3, "the key no/such/key does not exist", "give `key`");
    let port = with(&format!(":{}", sshd.port), ":9");
    project.refuses(&port, 3, "connecting", "is the machine running, and its sshd reachable");
}

#[test]
fn another_version_is_not_talked_to() {
    let sshd = Sshd::start();
    let project = project(&sshd);
    project.file("other", "#!/bin/sh\necho outlier 0.0.1\n");
    std::fs::set_permissions(project.path("other"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    project.file("script.rhai", provision(&sshd));
    let run = |worker: &str| {
        let mut command = project.command(&["run", "script.rhai"]);
        Outcome::of(command.env("OUTLIER_WORKER", worker).output().unwrap()).ends(3)
    };
    let outcome = run("other");
    assert!(outcome.stderr.contains("the worker says \"outlier 0.0.1\""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: build the worker that OUTLIER_WORKER names"), "{}", outcome.stderr);
    let outcome = run("no/such/worker");
    assert!(outcome.stderr.contains("reading the worker no/such/worker"), "{}", outcome.stderr);
}

#[test]
fn a_full_disk_is_told() {
    let sshd = Sshd::start();
    let project = project(&sshd);
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(sshd.home()).status();
    assert!(mounted.unwrap().success(), "a small file system needs root");
    let outcome = project.script(&provision(&sshd)).ends(3);
    let _ = std::process::Command::new("umount").arg("-l").arg(sshd.home()).status();
    assert!(outcome.stderr.contains("the disk is full"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: ask for a larger disk"), "{}", outcome.stderr);
}
