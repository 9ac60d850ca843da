//! Tests of a machine that is this computer under another name: the paths of a script stay in the
//! project's folder, however they are written and wherever links lead.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::project::Project;
use crate::sshd::Sshd;

fn provision(sshd: &Sshd) -> String {
    let (host, key, fingerprint) = (sshd.target(), sshd.key_file(), sshd.fingerprint());
    format!(
        "let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"{host}\", key: \"{}\", fingerprint: \"{fingerprint}\" }});\n",
        key.display()
    )
}

/// Each call by itself: `DONE` and the call, or what was said.
fn tried(calls: &[&str]) -> String {
    let one = |call: &&str| {
        format!("try {{ {call}; print({:?}); }} catch (e) {{ print(e.message); }}\n", format!("DONE {call}"))
    };
    calls.iter().map(one).collect()
}

/// The project's folder on the machine.
fn folder(sshd: &Sshd) -> PathBuf {
    let mut folders = fs::read_dir(sshd.home().join(".outlier/projects")).unwrap();
    folders.next().unwrap().unwrap().path()
}

const MODEL: &str = "let made = gpu.miniature_model(\"gpt_oss\");
    let model = gpu.load_model(made.path);
    let tokens = load_tokens(#{ text: made.text, model: model, num_sequences: 1, sequence_length: 16 });\n";

#[test]
pub fn a_path_in_the_home_folder_is_not_one_in_the_project() {
    let sshd = Sshd::start();
    let project = Project::trusting(&sshd.fingerprint());
    project.file("texts/a.jsonl", "sent").file("~/b.txt", "sent");
    sshd.at_home("diary.txt", &"my secret life ".repeat(100)).at_home("kept/id.txt", "theirs");
    let calls = [
        "gpu.upload(\"texts/a.jsonl\", \"~/.zzzrc\")",
        "gpu.upload(\"texts/a.jsonl\", \"~/.ssh/authorized_keys_zzz\")",
        "gpu.upload(\"texts/a.jsonl\", \"~\")",
        "gpu.upload(\"texts/a.jsonl\", \"a/../../../b\")",
        "gpu.upload(\"~/b.txt\", \"b.txt\")",
        "gpu.download(\"~/diary.txt\", \"results/diary.txt\")",
        "gpu.download(\"~/.outlier/../diary.txt\", \"results/diary.txt\")",
        "gpu.download(\"texts/a.jsonl\", \"~/mine.txt\")",
        "gpu.sync(#{ up: \"~/b.txt\" })",
        "gpu.sync(#{ down: \"~/kept\" })",
        "gpu.sync(#{ down: \"*~/kept\" })",
        "load_tokens(#{ text: \"~/diary.txt\", model: model, num_sequences: 1, sequence_length: 16 })",
        "load_tokens(#{ text: \"../../../diary.txt\", model: model, num_sequences: 1, sequence_length: 16 })",
    ];
    let outcome = project.script(&format!("{}{MODEL}{}", provision(&sshd), tried(&calls))).ends(0);
    let said: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(said.len(), calls.len(), "{}", outcome.stdout);
    for (said, call) in said.iter().zip(calls) {
        let expected = if call.contains("*~") { "has nothing at" } else { "is not inside the project" };
        assert!(said.contains(expected), "{call}: {said}");
    }
    let home: Vec<String> =
        fs::read_dir(sshd.home()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(home.iter().all(|name| [".outlier", "diary.txt", "kept", ".cache"].contains(&&**name)), "{home:?}");
    assert!(!project.has("results/diary.txt") && !project.has("kept") && !project.has("~/mine.txt"));
    // A file of the project that is called so, and with the user's leave all of this computer.
    project.script(&format!("{}gpu.upload(\"./~/b.txt\", \"b.txt\");", provision(&sshd))).ends(0);
    let script = format!("{}gpu.download(\"~/diary.txt\", \"results/diary.txt\");", provision(&sshd));
    project.file("script.rhai", script).run(&["run", "--allow-commands", "script.rhai"]).ends(0);
    assert!(project.text("results/diary.txt").starts_with("my secret life"));
}

#[test]
pub fn a_link_there_does_not_lead_out_of_the_project() {
    let sshd = Sshd::start();
    let project = Project::trusting(&sshd.fingerprint());
    project.file("away/a.txt", "sent").file("a.txt", "sent").file("inner/a.txt", "sent");
    sshd.at_home("diary.txt", &"my secret life ".repeat(100)).at_home("deep/x.txt", "theirs");
    project.script(&format!("{}gpu.upload(\"a.txt\", \"data/here.txt\");", provision(&sshd))).ends(0);
    symlink(sshd.home(), folder(&sshd).join("away")).unwrap();
    symlink(sshd.home().join("diary.txt"), folder(&sshd).join("note.txt")).unwrap();
    symlink(sshd.home().join("made_new"), folder(&sshd).join("new.txt")).unwrap();
    symlink("data", folder(&sshd).join("inner")).unwrap();
    let calls = [
        "gpu.upload(\"a.txt\", \"away/a.txt\")",
        "gpu.upload(\"a.txt\", \"away/new/deep/a.txt\")",
        "gpu.download(\"away/diary.txt\", \"results/d.txt\")",
        "gpu.download(\"note.txt\", \"results/d.txt\")",
        "gpu.sync(#{ up: \"away\" })",
        "gpu.sync(#{ down: \"away/deep\" })",
        "gpu.sync(#{ down: \"aw*/deep\" })",
        "load_tokens(#{ text: \"note.txt\", model: model, num_sequences: 1, sequence_length: 16 })",
        "load_tokens(#{ text: \"away/diary.txt\", model: model, num_sequences: 1, sequence_length: 16 })",
        "model.extract_layernorms(tokens, #{ keep: \"full\", out: \"away/full\" })",
        "model.extract_layernorms(tokens, #{ checkpoint: \"away/c\", checkpoint_layers: 1 })",
        "gpu.upload(\"a.txt\", \"new.txt\")",
    ];
    let script = format!(
        "{}{MODEL}{}gpu.sync(#{{ up: \"inner\" }}); gpu.download(\"inner/here.txt\", \"results/here.txt\");",
        provision(&sshd),
        tried(&calls)
    );
    let outcome = project.script(&script).ends(0);
    let said: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(said.len(), calls.len(), "{}", outcome.stdout);
    for (said, call) in said.iter().zip(calls) {
        assert!(said.contains("leads out of the project's folder on"), "{call}: {said}");
    }
    for made in ["a.txt", "new", "full", "c", "made_new"] {
        assert!(!sshd.home().join(made).exists(), "{made}");
    }
    // One that stays in the folder leads where it leads.
    assert_eq!(project.text("results/here.txt"), "sent");
    assert!(folder(&sshd).join("data/a.txt").exists());
}

/// What is judged is what is opened: a pipe in the home folder is no key, however it is named.
#[test]
fn a_key_in_the_home_folder_is_judged_where_it_is() {
    let project = Project::new();
    fs::create_dir(project.path("home")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(project.path("home/pipe")).status().unwrap();
    assert!(made.success());
    for option in ["key", "known_hosts"] {
        let call = format!("provision_gpu(#{{ provider: \"ssh\", host: \"a@127.0.0.1:9\", {option}: \"~/pipe\" }});");
        project.file("script.rhai", call);
        let mut command = project.command(&["run", "--max-minutes", "1", "script.rhai"]);
        let outcome = crate::project::Outcome::of(command.env("HOME", project.path("home")).output().unwrap());
        assert!(outcome.stderr.contains(&format!("reading `{option}`")), "{}", outcome.stderr);
    }
}
