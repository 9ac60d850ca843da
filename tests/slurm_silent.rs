//! A Slurm that does not answer, or does not do what it is told: its commands are scripts of these tests. What is waited for is told,
//! and the first signal ends the wait.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::project::Project;

/// Whatever is waited for takes seconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(240);
/// The exit codes of a run that was interrupted, and of one that leaves a job that may be alive.
const INTERRUPTED: i32 = 130;
const LEAKED: i32 = 4;

/// A run that asks for a job, with the lines of its stderr.
struct Run {
    project: Project,
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Run {
    /// What `sbatch`, `squeue` and `scancel` do there, as lines of a shell. Each call leaves a line in `calls`.
    fn start(sbatch: &str, squeue: &str, scancel: &str) -> Self {
        Self::with("", sbatch, squeue, scancel)
    }

    /// The same for a request with more options.
    fn with(options: &str, sbatch: &str, squeue: &str, scancel: &str) -> Self {
        let project = Project::new();
        let calls = project.path("calls");
        for (name, does) in
            [("sbatch", sbatch), ("squeue", squeue), ("scancel", scancel), ("scontrol", ""), ("srun", "")]
        {
            let path = format!("bin/{name}");
            project.file(&path, format!("#!/bin/sh\necho {name} \"$@\" >> {}\n{does}\n", calls.display()));
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(project.path(&path), executable).unwrap();
        }
        let asked = format!("provision_gpu(#{{ provider: \"slurm\", gpu_count: 0, max_hours: 1, {options} }});");
        project.file("script.rhai", asked);
        let mut command = project.command(&["run", "script.rhai"]);
        let path = std::env::var("PATH").unwrap();
        std::fs::create_dir(project.path("home")).unwrap();
        command.env("HOME", project.path("home")).env("PATH", format!("{}:{path}", project.path("bin").display()));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { project, child, lines, said: Vec::new() }
    }

    /// Waits until a line of stderr has all of these in it.
    #[track_caller]
    fn says(&mut self, parts: &[&str]) {
        let begin = Instant::now();
        let has = |line: &String| parts.iter().all(|part| line.contains(part));
        while !self.said.iter().any(has) {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                Ok(line) => self.said.push(line),
                Err(_) => panic!("waited in vain for {parts:?}; said was {:#?}", self.said),
            }
        }
    }

    #[track_caller]
    fn waits_for(&self, call: &str) {
        let begin = Instant::now();
        while !(self.project.has("calls") && self.project.text("calls").contains(call)) {
            assert!(begin.elapsed() < PATIENCE, "{call} was never called");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The first signal ends the run; returns its exit code.
    #[track_caller]
    fn ends_at_the_first_signal(&mut self) -> i32 {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.said.extend(self.lines.iter());
                return status.code().unwrap();
            }
            assert!(begin.elapsed() < PATIENCE, "the first signal did not end it; said was {:#?}", self.said);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stages(&self) -> Vec<String> {
        let db = rusqlite::Connection::open(self.project.path("results/gpus.sqlite")).unwrap();
        let mut rows = db.prepare("SELECT stage FROM machines").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Longer than any test runs. It ends with the command that is ended.
const NEVER: &str = "exec sleep 900";

#[test]
fn an_sbatch_that_never_answers_is_told_and_left_at_the_first_signal() {
    let mut run = Run::start(NEVER, "", "");
    run.says(&["waiting for the end of sbatch, at most 180 s"]);
    assert_eq!(run.ends_at_the_first_signal(), INTERRUPTED, "{:#?}", run.said);
    // It may have submitted a job nevertheless: the next run looks for it.
    run.says(&["sbatch has not ended within", "whether outlier-", "was created is open"]);
    assert_eq!(run.stages(), ["intended"]);
}

#[test]
fn an_squeue_that_never_answers_is_told_and_left_at_the_first_signal() {
    let mut run = Run::start("echo 4242", NEVER, "");
    run.says(&["waiting for the end of squeue, at most 180 s"]);
    let code = run.ends_at_the_first_signal();
    assert_eq!(code, LEAKED, "{:#?}", run.said);
    assert!(run.project.text("calls").contains("scancel 4242"), "it was cancelled");
    run.says(&["4242 may still be running", "squeue has not ended within"]);
}

#[test]
fn a_controller_that_does_not_answer_is_told_and_left_at_the_first_signal() {
    let fails = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1";
    let mut run = Run::start("echo 4242", fails, "");
    run.says(&["4242: the controller of Slurm does not answer", "asking again, for at most"]);
    let code = run.ends_at_the_first_signal();
    assert_eq!(code, LEAKED, "{:#?}", run.said);
    assert!(run.project.text("calls").contains("scancel 4242"), "it was cancelled");
}

#[test]
fn a_job_that_stays_in_the_queue_after_scancel_is_told_and_left_after_the_first_signal() {
    let squeue = "name=$(grep -o 'job-name=[^ ]*' \"$HOME/../calls\" | cut -d= -f2 | head -n 1)\n\
                  echo \"4242|PENDING|Priority|gpu:1|2026-11-30T12:00:00|$name\"";
    let mut run = Run::start("echo 4242", squeue, "");
    run.says(&["4242: it waits in the queue (Priority)"]);
    let code = run.ends_at_the_first_signal();
    assert_eq!(code, LEAKED, "{:#?}", run.said);
    run.waits_for("scancel 4242");
    run.says(&["4242: waiting until slurm lists it no more, at most"]);
    run.says(&["4242 may still be running: it is still listed"]);
    run.says(&["4242 (", ") is still alive"]);
    let money = run.said.iter().find(|line| line.contains("costing") || line.contains("costs"));
    assert_eq!(money, None, "a job of a cluster costs no money");
}

#[test]
fn the_features_of_a_node_are_asked_for() {
    let refuses = "echo 'sbatch: error: Batch job submission failed: Invalid feature specification' >&2; exit 1";
    let mut run = Run::with("constraint: \"a100&nvlink\"", refuses, "", "");
    run.waits_for("--constraint=a100&nvlink");
    run.says(&["sbatch: Invalid feature specification"]);
    run.says(&["hint", "`sinfo -o '%N %f'`", "`constraint`"]);
}
