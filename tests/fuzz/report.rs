//! The definition of a fault, and the report of all runs: by target, and for faults by the place
//! where they come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{End, Ended};

/// The exit codes that `outlier --help` names, but that of a fault of the program; and that of a script that ends itself with
/// `exit(99999)`.
const DOCUMENTED: &[i32] = &[0, 1, 2, 3, 4, 125, 130];
/// What a program says when it has lost its way.
const PANICS: &[&str] = &["panicked at", "a primitive panicked", "has overflowed its stack", "memory allocation of"];

/// A fault: what is wrong, and where it comes from, equal for cases that show the same one.
pub struct Fault {
    pub site: String,
}

/// What is wrong with a run, if anything is; `memory` is the most that it may use, in bytes.
pub fn judge(ended: &Ended, memory: u64) -> Option<Fault> {
    let mut wrong = Vec::new();
    match ended.end {
        End::Hang => wrong.push("hang".to_string()),
        End::Signal(signal) => wrong.push(format!("signal {signal}")),
        End::Code(code) if !DOCUMENTED.contains(&code) => wrong.push(format!("exit code {code}")),
        End::Code(_) => (),
    }
    let said = [&ended.errors, &ended.output];
    if PANICS.iter().any(|panic| said.iter().any(|text| text.contains(panic))) {
        wrong.push("panic".to_string());
    }
    if ended.memory > memory {
        wrong.push(format!("memory over {} MB", memory >> 20));
    }
    wrong.extend(ended.observed.iter().cloned());
    (!wrong.is_empty()).then(|| Fault { site: format!("{}: {}", wrong.join(", "), place(ended)) })
}

/// Where a program panicked and what it said, or else its last words; without what differs from case to case.
fn place(ended: &Ended) -> String {
    let lines = || ended.errors.lines().chain(ended.output.lines());
    if let Some(at) = lines().position(|line| line.contains("panicked at")) {
        let mut lines = lines().skip(at);
        let place = lines.next().unwrap_or_default().split("panicked at").nth(1).unwrap_or_default();
        return format!("{} {}", plain(place, 4), plain(lines.next().unwrap_or_default(), 0));
    }
    let known = lines().find(|line| PANICS.iter().any(|panic| line.contains(panic)));
    let last = || ended.errors.lines().rfind(|line| !line.trim().is_empty());
    plain(known.or_else(last).unwrap_or("it said nothing"), 0)
}

/// Places in crates begin with the crate, numbers of more than so many digits become N, and what is quoted is left out.
fn plain(text: &str, most_digits: usize) -> String {
    let text =
        text.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/')).map_or(text, |(_, rest)| rest);
    let (mut plain, mut digits, mut quoted) = (String::new(), String::new(), false);
    for character in text.chars().take(400).chain(['\n']) {
        if character == '"' {
            quoted = !quoted;
            plain.push('"');
        } else if character.is_ascii_digit() && !quoted {
            digits.push(character);
        } else if !quoted {
            plain.push_str(if digits.len() > most_digits { "N" } else { &digits });
            digits.clear();
            plain.push(if character.is_control() { ' ' } else { character });
        }
    }
    plain.trim().chars().take(200).collect()
}

/// Of so many runs at least one succeeds, where success is possible.
const ENOUGH: usize = 300;

#[derive(Default)]
struct Group {
    count: usize,
    /// Numbers of the first cases that show it.
    cases: Vec<u64>,
}

/// All runs of one target.
#[derive(Default)]
pub struct Tally {
    pub runs: usize,
    pub spent: Duration,
    ends: BTreeMap<End, usize>,
    slowest: (Duration, u64),
    biggest: (u64, u64),
    faults: BTreeMap<String, Group>,
}

impl Tally {
    pub fn add(&mut self, number: u64, ended: &Ended, fault: Option<&Fault>) {
        self.runs += 1;
        *self.ends.entry(ended.end).or_default() += 1;
        self.slowest = self.slowest.max((ended.wall, number));
        self.biggest = self.biggest.max((ended.memory, number));
        if let Some(fault) = fault {
            let group = self.faults.entry(fault.site.clone()).or_default();
            group.count += 1;
            if group.cases.len() < 5 {
                group.cases.push(number);
            }
        }
    }

    /// Whether so many runs all ended with an error that what lies behind the first check is not reached.
    pub fn is_blind(&self) -> bool {
        self.runs >= ENOUGH && !self.ends.contains_key(&End::Code(0))
    }

    /// How often this fault was seen before.
    pub fn seen(&self, fault: &Fault) -> usize {
        self.faults.get(&fault.site).map_or(0, |group| group.count)
    }

    pub fn faults(&self) -> usize {
        self.faults.values().map(|group| group.count).sum()
    }

    pub fn tell(&self, name: &str) {
        let ends: Vec<_> = self.ends.iter().map(|(end, count)| format!("{} × {count}", told(*end))).collect();
        let rate = self.runs as f64 / self.spent.as_secs_f64().max(0.001);
        println!(
            "{name:<12} {:>6} runs, {rate:>5.1}/s a thread, slowest {:.1} s ({name}:{}), most memory {} MB ({name}:{}); {}",
            self.runs,
            self.slowest.0.as_secs_f64(),
            self.slowest.1,
            self.biggest.0 >> 20,
            self.biggest.1,
            ends.join(", ")
        );
        let mut groups: Vec<_> = self.faults.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        for (site, group) in groups {
            let cases: Vec<_> = group.cases.iter().map(|number| format!("{name}:{number}")).collect();
            println!("  FAULT {:>5} × {site}  [{}]", group.count, cases.join(" "));
        }
    }
}

fn told(end: End) -> String {
    match end {
        End::Code(code) => format!("exit {code}"),
        End::Signal(signal) => format!("signal {signal}"),
        End::Hang => "hang".to_string(),
    }
}

/// Copies what the program got to a folder where it stays, with what it said and how to see it again.
pub fn keep(
    to: &Path,
    from: &Path,
    ended: &Ended,
    fault: &Fault,
    words: &str,
    again: &str,
) -> std::io::Result<PathBuf> {
    let _ = std::fs::remove_dir_all(to);
    copy(from, to)?;
    let told = format!(
        "{}\noutlier {words}\nagain: {again}\nended: {}, {:.1} s, {} MB\n\nstderr:\n{}\n\nstdout:\n{}\n",
        fault.site,
        told(ended.end),
        ended.wall.as_secs_f64(),
        ended.memory >> 20,
        ended.errors,
        ended.output
    );
    std::fs::write(to.join("FAULT.txt"), told)?;
    Ok(to.to_path_buf())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
