//! Fuzzing: the program gets thousands of damaged files, senseless options, broken scripts and
//! malicious peers. It must answer each with an exit code that it documents: no panic, no signal,
//! no hang, and no unlimited memory.
//!
//! `make fuzz MINUTES=5 [SEED=1] [ONLY=config,tokenizer]`, and `make fuzz SEED=1 CASE=config:1234` for one case again. Without these
//! variables a short one, as part of `cargo test`. A case depends on its seed, target and number only. docs/fuzzing.md.

// What modules of a test show to each other is public to nobody else.
#![allow(unreachable_pub)]

mod chance;
mod commands;
mod detection;
mod frames;
#[path = "../gguf_file.rs"]
#[allow(dead_code)] // tests use the rest of it
mod gguf_file;
mod gguf_files;
mod hub;
mod model_files;
mod mutate;
mod options;
mod places;
mod process;
#[path = "../pytorch.rs"]
#[allow(dead_code)] // tests use the rest of it
mod pytorch;
mod pytorch_files;
mod quantised_files;
mod record_files;
mod report;
mod scripts;
mod text_files;
mod wire;
mod workshop;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use chance::Chance;
use process::{End, Ended, Start};
use report::{Fault, Tally};
use workshop::Workshop;

/// Cases of each target in `cargo test`.
const SHORT: u64 = 12;
/// What the program may use, whatever it gets: time until it ends, and bytes of memory.
#[derive(Clone, Copy)]
struct Limits {
    time: Duration,
    memory: u64,
}
const LIMITS: Limits = Limits { time: Duration::from_secs(20), memory: 2 << 30 };
/// Of one fault so many cases are kept.
const KEPT: usize = 3;

/// Makes a case in an empty folder: writes files there and says how to start the program.
type Make = fn(&Workshop, &Path, &mut Chance) -> Start;

const TARGETS: &[(&str, Make)] = &[
    ("config", model_files::config),
    ("header", model_files::header),
    ("values", model_files::values),
    ("index", model_files::index),
    ("pytorch", pytorch_files::pytorch),
    ("gguf", gguf_files::gguf),
    ("quantised", quantised_files::quantised),
    ("tokenizer", model_files::tokenizer),
    ("ids", text_files::ids),
    ("jsonl", text_files::jsonl),
    ("json", text_files::json),
    ("csv", text_files::csv),
    ("packed", text_files::packed),
    ("parquet", text_files::parquet),
    ("records", record_files::record),
    ("results", record_files::results),
    ("checkpoints", record_files::checkpoint),
    ("options", options::options),
    ("scripts", scripts::scripts),
    ("commands", commands::commands),
    ("worker", wire::hostile_worker),
    ("client", wire::hostile_client),
    ("hub", hub::hub),
    ("places", places::places),
    ("ssh", places::ssh),
    ("dotenv", places::dotenv),
    ("sync", places::sync),
];

/// Those that play an enemy whom nobody satisfies.
const NEVER_SUCCEED: [&str; 2] = ["worker", "hub"];

/// One target at work.
#[derive(Default)]
struct Line {
    next: u64,
    tally: Tally,
}

struct Fuzz {
    program: PathBuf,
    workshop: Arc<Workshop>,
    limits: Limits,
    seed: u64,
    /// Where failing cases are kept.
    kept: PathBuf,
    lines: Mutex<BTreeMap<&'static str, Line>>,
    /// Held for reading by every case, and for writing by one that is repeated alone.
    alone: RwLock<()>,
}

/// What a whole run found: how many faults.
struct Found {
    faults: usize,
}

/// When it is over.
#[derive(Clone, Copy)]
enum Until {
    Cases(u64),
    Time(Instant),
}

impl Fuzz {
    fn new(program: &Path, workshop: Arc<Workshop>, seed: u64, kept: PathBuf) -> Self {
        let (program, lines, alone) = (program.to_path_buf(), Mutex::default(), RwLock::default());
        Self { program, workshop, limits: LIMITS, seed, kept, lines, alone }
    }

    /// All targets in turn, each for the same time.
    fn run(&self, targets: &[(&'static str, Make)], until: Until, threads: usize) -> Found {
        *self.lines.lock().unwrap() = targets.iter().map(|(name, _)| (*name, Line::default())).collect();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((name, make, number)) = self.next(targets, until) {
                        self.case(name, make, number);
                    }
                });
            }
        });
        let lines = self.lines.lock().unwrap();
        targets.iter().for_each(|(name, _)| lines[name].tally.tell(name));
        let runs: usize = lines.values().map(|line| line.tally.runs).sum();
        let faults: usize = lines.values().map(|line| line.tally.faults()).sum();
        let blind = |name: &&str| !NEVER_SUCCEED.contains(name) && lines[*name].tally.is_blind();
        let blind: Vec<&str> = targets.iter().map(|(name, _)| *name).filter(|name| blind(name)).collect();
        if !blind.is_empty() {
            println!(
                "BLIND {}: no run of these succeeded, so most of the program is not reached by them",
                blind.join(", ")
            );
        }
        println!(
            "{runs} runs with seed {}: {faults} faults{}",
            self.seed,
            match faults {
                0 => String::new(),
                _ => format!(", kept in {}", self.kept.display()),
            }
        );
        Found { faults: faults + blind.len() }
    }

    /// The next case of the target that has had the least time.
    fn next(&self, targets: &[(&'static str, Make)], until: Until) -> Option<(&'static str, Make, u64)> {
        let mut lines = self.lines.lock().unwrap();
        let open = |line: &Line| match until {
            Until::Cases(count) => line.next < count,
            Until::Time(end) => Instant::now() < end,
        };
        let waiting = targets.iter().filter(|(name, _)| open(&lines[name]));
        // What is at work counts a little, so that threads take different targets.
        let (name, make) = waiting.min_by_key(|(name, _)| {
            let line = &lines[name];
            line.tally.spent + Duration::from_millis(200) * (line.next as usize - line.tally.runs) as u32
        })?;
        let line = lines.get_mut(name).unwrap();
        line.next += 1;
        Some((name, *make, line.next))
    }

    fn case(&self, name: &'static str, make: Make, number: u64) {
        let begin = Instant::now();
        let (mut ended, mut folder, words) = {
            let _together = self.alone.read().unwrap();
            self.once(name, make, number, self.limits.time)
        };
        // A machine with other work is slow: what seems to hang is tried again alone, for longer where the machine is loaded.
        if ended.end == End::Hang {
            let _alone = self.alone.write().unwrap();
            (ended, folder, _) = self.once(name, make, number, self.limits.time.mul_f64(load()));
        }
        let fault = report::judge(&ended, self.limits.memory);
        let mut lines = self.lines.lock().unwrap();
        let tally = &mut lines.get_mut(name).unwrap().tally;
        if let Some(fault) = fault.as_ref().filter(|fault| tally.seen(fault) < KEPT) {
            self.keep(name, number, folder.path(), &ended, fault, &words);
        }
        tally.spent += begin.elapsed();
        tally.add(number, &ended, fault.as_ref());
    }

    fn once(&self, name: &str, make: Make, number: u64, limit: Duration) -> (Ended, tempfile::TempDir, String) {
        let mut chance = Chance::of(self.seed, name, number);
        let folder = tempfile::Builder::new().prefix("case").tempdir_in(self.workshop.root()).unwrap();
        // One folder deeper than its own, so that what climbs out of it is seen.
        let project = folder.path().join("project");
        std::fs::create_dir(&project).unwrap();
        let start = make(&self.workshop, &project, &mut chance);
        let (words, may_write) = (format!("{:?}", start.words), start.may_write.clone());
        let before = names(&project);
        let mut ended = process::run(&self.program, &project, start, limit);
        if !may_write.is_empty() {
            let strange = |name: &String| !before.contains(name) && !may_write.contains(&name.as_str());
            let outside =
                names(folder.path()).into_iter().filter(|name| name != "project").map(|name| format!("../{name}"));
            let written = names(&project).into_iter().filter(strange).chain(outside);
            ended.observed.extend(written.map(|name| format!("wrote {name:?}")));
        }
        (ended, folder, words)
    }

    fn keep(&self, name: &str, number: u64, folder: &Path, ended: &Ended, fault: &Fault, words: &str) {
        let again = format!("make fuzz SEED={} CASE={name}:{number}", self.seed);
        let to = self.kept.join(format!("{name}-{number}"));
        match report::keep(&to, folder, ended, fault, words, &again) {
            Ok(to) => eprintln!("FAULT {name}:{number} {} ({})", fault.site, to.display()),
            Err(error) => eprintln!("FAULT {name}:{number} {}, not kept: {error}", fault.site),
        }
    }
}

/// What is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// How many processes share a core at the moment: from 1 to 4.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    (load / threads() as f64).clamp(1.0, 4.0)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    variable(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// The program to fuzz: a named one, or the one that was built with the tests.
fn program() -> PathBuf {
    std::env::var_os("OUTLIER_TEST_PROGRAM").map_or(PathBuf::from(env!("CARGO_BIN_EXE_outlier")), PathBuf::from)
}

fn main() -> ExitCode {
    if let Some(case) = variable(wire::HOSTILE) {
        wire::play_worker(&case);
        return ExitCode::SUCCESS;
    }
    // The runner of tests asks what there is.
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    // `cargo test NAME` asks for something else.
    if std::env::args().skip(1).any(|word| !word.starts_with('-') && !"fuzz".contains(&word)) {
        return ExitCode::SUCCESS;
    }
    let seed = number("SEED").unwrap_or(1);
    let program = std::path::absolute(program()).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/fuzz/{seed}"));
    let minutes: Option<f64> = number("MINUTES");
    let workshop = Arc::new(Workshop::open(&program));
    if minutes.is_none() && variable("CASE").is_none() {
        detection::finds_planted_faults(&workshop, &kept);
    }
    let fuzz = Fuzz::new(&program, workshop, seed, kept);
    if let Some(case) = variable("CASE") {
        return one(&fuzz, &case);
    }
    let only = variable("ONLY");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let targets: Vec<_> = TARGETS.iter().filter(|(name, _)| wanted(name)).copied().collect();
    assert!(!targets.is_empty(), "ONLY names none of {:?}", TARGETS.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let until = match minutes {
        Some(minutes) => Until::Time(Instant::now() + Duration::from_secs_f64(60.0 * minutes)),
        None => Until::Cases(number("CASES").unwrap_or(SHORT)),
    };
    let found = fuzz.run(&targets, until, threads());
    ExitCode::from((found.faults > 0) as u8)
}

/// One case again, `TARGET:NUMBER`; its folder is kept whatever happens.
fn one(fuzz: &Fuzz, case: &str) -> ExitCode {
    let parsed = case.split_once(':').and_then(|(name, number)| Some((name, number.parse::<u64>().ok()?)));
    let target = parsed.and_then(|(name, number)| Some((TARGETS.iter().find(|(known, _)| *known == name)?, number)));
    let Some(((name, make), number)) = target else {
        panic!("CASE is TARGET:NUMBER, such as config:17, not {case}");
    };
    let (ended, folder, words) = fuzz.once(name, *make, number, fuzz.limits.time);
    let fault = report::judge(&ended, fuzz.limits.memory);
    let told = Fault { site: fault.as_ref().map_or("no fault".to_string(), |fault| fault.site.clone()) };
    fuzz.keep(name, number, folder.path(), &ended, &told, &words);
    println!("{}", std::fs::read_to_string(fuzz.kept.join(format!("{name}-{number}/FAULT.txt"))).unwrap_or_default());
    ExitCode::from(fault.is_some() as u8)
}
