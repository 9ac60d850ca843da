//! Tests of machines of the user's own, over SSH, on which a worker is left running: they are
//! listed, used again and ended, whatever has happened to the run that began there. A run that has
//! ended leaves nothing.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::project::{Outcome, Project, stripped};
use crate::sshd::Sshd;

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(300), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn provision(sshd: &Sshd, more: &str) -> String {
    let (host, key) = (sshd.target(), sshd.key_file());
    format!("let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"{host}\", key: \"{}\"{more} }});\n", key.display())
}

fn command(project: &Project, words: &[&str]) -> std::process::Command {
    let mut command = project.command(words);
    command.env("OUTLIER_WORKER", stripped()).env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command.env_remove("RUNPOD_API_KEY");
    command
}

/// Its user vouches for the host key in this run only: later commands know the machine from the run.
fn run(project: &Project, sshd: &Sshd, script: &str) -> Outcome {
    project.file("script.rhai", script);
    let key = sshd.fingerprint();
    Outcome::of(command(project, &["run", "--host-key", &key, "script.rhai"]).output().unwrap())
}

fn gpus(project: &Project, words: &[&str]) -> Outcome {
    Outcome::of(command(project, &[&["gpus"], words].concat()).output().unwrap())
}

/// What is typed into a prompt that is attached to the machine.
fn attached(project: &Project, id: &str, input: &str) -> Outcome {
    project.file("input", input);
    let mut command = command(project, &["repl", "--attach", id]);
    command.stdin(std::fs::File::open(project.path("input")).unwrap());
    Outcome::of(command.output().unwrap())
}

fn workers(sshd: &Sshd) -> usize {
    sshd.running("worker serve").len()
}

/// The folders of workers there.
fn folders(sshd: &Sshd) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sshd.home().join(".outlier/w")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_machine_that_is_left_at_work_is_found_again() {
    let sshd = Sshd::start();
    let project = Project::new();
    let script = provision(&sshd, ", keep_running: true, max_hours: 5");
    let outcome = run(
        &project,
        &sshd,
        &format!("{script} print(gpu.name); gpu.load_model(gpu.miniature_model(\"gpt_oss\").path);"),
    );
    let outcome = outcome.ends(0);
    let (name, host) = (outcome.stdout.trim().to_string(), sshd.target());
    for words in
        ["is left at work as", "it ends itself 5.0 h from now", "outlier repl --attach", "outlier gpus terminate"]
    {
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains('$'), "nothing is paid for: {}", outcome.stderr);
    assert_eq!(workers(&sshd), 1);
    let listed = gpus(&project, &[]).ok();
    assert!(listed.contains(&host) && listed.contains(&name) && listed.contains("kept running"), "{listed}");
    assert!(listed.contains("at most 4 h 59 min more") || listed.contains("at most 5 h 0 min more"), "{listed}");
    assert!(gpus(&project, &["--all"]).ok().contains(&name));
    assert!(gpus(&project, &["logs", &host]).ends(0).stderr.is_empty());
    // By its name and by what its user calls it, from a prompt and from a script; it stays.
    let outcome = attached(&project, &name, "models.len()\ngpu.id\n").ends(0);
    assert!(outcome.stdout.contains("loaded there:") && outcome.stdout.contains("\n1\n"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr.matches("is left at work as").count(), 1, "{}", outcome.stderr);
    let script = format!("print(attach_gpu({host:?}).models().len());");
    let outcome = Outcome::of(command(project.file("script.rhai", script), &["run", "script.rhai"]).output().unwrap());
    assert_eq!(outcome.ok(), "1\n");
    assert_eq!(workers(&sshd), 1, "the same one");
    gpus(&project, &["reap"]).ok();
    assert_eq!(workers(&sshd), 1, "it is not left over");
    // It is ended by either.
    let said = gpus(&project, &["terminate", &host]).ok();
    assert!(said.contains("has ended") && !said.contains('$'), "{said}");
    wait_for("its end", || workers(&sshd) == 0);
    assert!(folders(&sshd).is_empty());
    assert!(gpus(&project, &[]).ok().contains("no machine of this project is known to be alive"));
    assert!(gpus(&project, &["terminate", &name]).ok().contains("has ended before"));
    gpus(&project, &["terminate", "typo"]).ends(3);
}

#[test]
fn a_run_that_was_killed_leaves_no_machine_that_nobody_knows() {
    let sshd = Sshd::start();
    let project = Project::new();
    let script = format!("{} print(\"there\"); sleep(600);", provision(&sshd, ""));
    project.file("script.rhai", script);
    let start = || {
        let mut command = command(&project, &["run", "--host-key", &sshd.fingerprint(), "script.rhai"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the worker in the list", || gpus(&project, &[]).ok().contains("ready, at most"));
        child
    };
    let mut child = start();
    let listed = gpus(&project, &[]).ok();
    assert!(listed.contains(&sshd.target()) && !listed.contains("died"), "{listed}");
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = gpus(&project, &[]).ok();
    assert!(listed.contains("its run has died"), "{listed}");
    assert_eq!(workers(&sshd), 1);
    let said = gpus(&project, &["reap"]).ok();
    assert!(said.contains("was left at work by a run that died: ended"), "{said}");
    wait_for("its end", || workers(&sshd) == 0);
    assert!(folders(&sshd).is_empty());
    // The next run on the machine clears up as well.
    let mut child = start();
    child.kill().unwrap();
    child.wait().unwrap();
    let outcome = run(&project, &sshd, &provision(&sshd, "")).ends(0);
    assert!(outcome.stderr.contains("was left at work by a run that died: ended"), "{}", outcome.stderr);
    wait_for("the end of the workers", || workers(&sshd) == 0);
    assert!(gpus(&project, &[]).ok().contains("no machine of this project"));
}

#[test]
fn a_machine_that_cannot_be_reached_is_told_and_stays_in_the_list() {
    let mut sshd = Sshd::start();
    let project = Project::new();
    let name = run(&project, &sshd, &format!("{} print(gpu.name);", provision(&sshd, ", keep_running: true"))).ok();
    sshd.cut();
    let outcome = gpus(&project, &["terminate", name.trim()]).ends(4);
    assert!(outcome.stderr.contains("may still be at work"), "{}", outcome.stderr);
    let outcome = gpus(&project, &["--all"]).ends(3);
    assert!(outcome.stderr.contains("left out"), "{}", outcome.stderr);
    assert!(gpus(&project, &[]).ok().contains(name.trim()));
    sshd.up();
    gpus(&project, &["terminate", name.trim()]).ok();
    wait_for("its end", || workers(&sshd) == 0);
}

#[test]
fn a_worker_that_has_ended_by_itself_is_no_machine_any_more() {
    let sshd = Sshd::start();
    let project = Project::new();
    let script = format!("{} print(gpu.name);", provision(&sshd, ", keep_running: true"));
    let name = run(&project, &sshd, &script).ok();
    sshd.running("worker").into_iter().for_each(|pid| {
        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    });
    wait_for("its end", || workers(&sshd) == 0);
    let outcome = attached(&project, name.trim(), "").ends(3);
    assert!(outcome.stderr.contains("does not run any more"), "{}", outcome.stderr);
    assert!(gpus(&project, &[]).ok().contains("no machine of this project"));
    assert_eq!(workers(&sshd), 0, "none is started by looking");
}

#[test]
fn several_workers_on_one_machine_are_told_apart() {
    let sshd = Sshd::start();
    let project = Project::new();
    let kept = format!("{} print(gpu.name);", provision(&sshd, ", keep_running: true"));
    let names: Vec<String> = (0..2).map(|_| run(&project, &sshd, &kept).ok().trim().to_string()).collect();
    let outcome = gpus(&project, &["terminate", &sshd.target()]).ends(1);
    assert!(names.iter().all(|name| outcome.stderr.contains(name)), "{}", outcome.stderr);
    assert_eq!(workers(&sshd), 2);
    gpus(&project, &["terminate", &names[0]]).ok();
    wait_for("its end", || workers(&sshd) == 1);
    // What is left is meant by the name of the machine again.
    gpus(&project, &["terminate", &sshd.target()]).ok();
    wait_for("its end", || workers(&sshd) == 0);
}

#[test]
fn a_run_that_ends_leaves_no_folder_behind() {
    let sshd = Sshd::start();
    let project = Project::new();
    for _ in 0..2 {
        run(&project, &sshd, &format!("{} gpu.miniature_model(\"gpt_oss\");", provision(&sshd, ""))).ends(0);
        wait_for("the folder's end", || folders(&sshd).is_empty());
        assert!(gpus(&project, &[]).ok().contains("no machine of this project"));
    }
    // One whose time was over says so in its log.
    run(&project, &sshd, &provision(&sshd, ", keep_running: true, max_hours: 0.01")).ends(0);
    wait_for("its end", || workers(&sshd) == 0);
    let left = folders(&sshd);
    assert_eq!(left.len(), 1);
    assert!(std::fs::read_to_string(left[0].join("worker.log")).unwrap().contains("the worker ends: "));
    assert!(gpus(&project, &[]).ok().contains("its time is over"));
    gpus(&project, &["reap"]).ok();
    assert!(gpus(&project, &[]).ok().contains("no machine of this project"));
}
