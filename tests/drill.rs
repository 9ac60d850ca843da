//! The crash drill. Clients are killed at random instants while they rent, work and give back;
//! workers and their guardians are killed, stopped and starved inside of pods; and the service
//! misbehaves. Then the same command is run again. No machine may be left, no result lost, and no
//! machine paid for twice.
//!
//! `make drill SEED=7 RUNS=200`. Without these variables a short one, as part of `cargo test`.

// What modules of a test show to each other is public to nobody else.
#![allow(unreachable_pub)]
// The drill uses half of the tools that the tests share.
#![allow(dead_code)]

mod fake_runpod;
mod project;
mod sshd;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fake_runpod::{BLOWS, FAULTS, FakeRunPod, KEY};
use project::{FINAL, Project, stripped};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SHORT: usize = 6;
/// Runs after the killed one until the work is done; more are a loss.
const RECOVERIES: usize = 3;
/// A machine that was dropped ends itself within this time.
const SETTLE: Duration = Duration::from_secs(120);
/// Pods in which nothing is left that looks after them end themselves after one or two of these.
const GUARD: Duration = Duration::from_secs(40);

const WORK: &str = r#"
    import "deploy" as deploy;
    const GPUS = ["A40", "L40S", "A100"];
    if has_results("drill") {
        terminate_left_over("drill");
    } else {
        let machine = #{ provider: "runpod", gpu: global::GPUS, task: "drill", patience_minutes: 0.05, lease_minutes: 0.15 };
        deploy::with_machine(machine, |gpu| {
            let made = miniature_model(gpu, "olmoe");
            let model = load_model(gpu, made.path);
            let tokens = load_tokens(#{ text: made.text, model: model, num_sequences: 4, sequence_length: 128 });
            let acts = extract_layernorms(model, tokens);
            save_results("drill", #{ activations: acts, found: detect_outliers(acts) });
        });
    }
"#;

fn command(project: &Project, fake: &FakeRunPod) -> Command {
    let mut command = project.command(&["run", "work.rhai"]);
    command.env("OUTLIER_RUNPOD_URL", &fake.url).env("RUNPOD_API_KEY", KEY).env("OUTLIER_POLL_SECONDS", "0.1");
    command.env("OUTLIER_WORKER", stripped());
    let log = std::fs::File::options().create(true).append(true).open(project.path("terminal.log")).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    command
}

fn features(project: &Project) -> Option<String> {
    let path = format!("results/drill/{FINAL}");
    project.has(&path).then(|| project.json(&path)["pooled"].to_string())
}

struct Drill<'a> {
    programs: &'a Path,
    /// What an undisturbed run finds, and how long it takes.
    expected: String,
    whole: Duration,
}

#[derive(Default)]
struct Harm {
    leaked: usize,
    lost: usize,
    doubled: usize,
}

impl Drill<'_> {
    fn run(&self, random: &mut ChaCha8Rng, number: usize) -> Harm {
        let fault = random.random_bool(0.6).then(|| FAULTS[random.random_range(0..FAULTS.len())]);
        let instant = self.whole.mul_f64(random.random_range(0.0..1.3));
        let cut = random.random_bool(0.25).then(|| self.whole.mul_f64(random.random_range(0.3..1.0)));
        let blow = random.random_bool(0.6).then(|| BLOWS[random.random_range(0..BLOWS.len())]);
        let falls = self.whole.mul_f64(random.random_range(0.2..1.0));
        let fake = FakeRunPod::start().with_programs(self.programs).with_starts(GUARD).with_faults(fault.as_slice());
        let project = Project::new();
        project.file("work.rhai", WORK);
        let mut client = command(&project, &fake).spawn().unwrap();
        let begin = Instant::now();
        let mut uncut = cut;
        let (mut due, mut hit) = (blow, 0);
        while begin.elapsed() < instant && client.try_wait().unwrap().is_none() {
            if uncut.is_some_and(|at| begin.elapsed() >= at) {
                uncut = None;
                fake.cut(Duration::from_millis(300));
            }
            if begin.elapsed() >= falls
                && let Some(blow) = due.take()
            {
                hit += fake.strike(blow);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let killed = client.try_wait().unwrap().is_none();
        let _ = client.kill();
        let _ = client.wait();
        if let Some(blow) = due {
            hit += fake.strike(blow);
        }
        // Some users come back at once, others never: then the machine has nobody but itself.
        let deserted = random.random_bool(0.3);
        if deserted {
            settle(&fake);
        }
        let left = deserted && !fake.alive().is_empty();
        // Whether it was killed or not: the user runs it again.
        for _ in 0..RECOVERIES {
            let done = command(&project, &fake).status().unwrap().success();
            if done && features(&project).is_some() {
                break;
            }
        }
        settle(&fake);
        let harm = Harm {
            leaked: (left || !fake.alive().is_empty()) as usize,
            lost: (features(&project).as_ref() != Some(&self.expected)) as usize,
            doubled: (fake.most_at_once() > 1) as usize,
        };
        let state = if killed { "killed" } else { "ended by itself" };
        eprintln!(
            "{number}: {fault:?}, {state} after {:.2} s of {:.2} s{}{}{}",
            instant.as_secs_f64(),
            self.whole.as_secs_f64(),
            if cut.is_some() { ", connection cut" } else { "" },
            blow.map_or(String::new(), |blow| format!(", {blow:?} hit {hit}")),
            if deserted { ", deserted" } else { "" }
        );
        if harm.leaked + harm.lost + harm.doubled > 0 {
            eprintln!("  HARM: alive {:?}\n{}", fake.alive(), project.text("terminal.log"));
            for request in fake.requests() {
                eprintln!("  {request:?}");
            }
        }
        harm
    }
}

/// Waits until no machine is left, or for as long as that may take.
fn settle(fake: &FakeRunPod) {
    let begin = Instant::now();
    while !fake.alive().is_empty() && begin.elapsed() < SETTLE {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn variable(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")),
        _ => default,
    }
}

fn main() -> ExitCode {
    // The runner of tests asks what there is.
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    // `cargo test NAME` asks for something else.
    if std::env::args().skip(1).any(|word| !word.starts_with('-') && !"drill".contains(&word)) {
        return ExitCode::SUCCESS;
    }
    let (seed, runs) = (variable("SEED", 7), variable("RUNS", SHORT));
    let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
    let programs = tempfile::tempdir().unwrap();
    let (fake, project) = (FakeRunPod::start().with_programs(programs.path()), Project::new());
    project.file("work.rhai", WORK);
    // The first run brings the program, the second is as the others will be.
    assert!(command(&project, &fake).status().unwrap().success(), "{}", project.text("terminal.log"));
    std::fs::remove_dir_all(project.path("results/drill")).unwrap();
    let begin = Instant::now();
    assert!(command(&project, &fake).status().unwrap().success(), "{}", project.text("terminal.log"));
    let (whole, expected) = (begin.elapsed(), features(&project).unwrap());
    let drill = Drill { programs: programs.path(), expected, whole };
    let mut all = Harm::default();
    for number in 1..=runs {
        let harm = drill.run(&mut random, number);
        all.leaked += harm.leaked;
        all.lost += harm.lost;
        all.doubled += harm.doubled;
    }
    println!("{runs} runs: {} leaked, {} lost, {} doubled", all.leaked, all.lost, all.doubled);
    ExitCode::from((all.leaked + all.lost + all.doubled > 0) as u8)
}
