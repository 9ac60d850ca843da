//! `outlier plan`: what a script would do, from a dry run that records effects. Only configs,
//! headers and price lists are read. The plan is stored. The next run with the same arguments is
//! compared with it, and later plans use its measurements.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::check::import_statements;
use super::passes::{self, Actual, HERE, Pass, shown};
use crate::disk;
use crate::error::Result;
use crate::gpu::ProviderKind;
use crate::host::language::parsing;
use crate::host::language::script_text::text_of;
use crate::host::language::syntax;
use crate::host::run::context::Context;
use crate::host::run::modules::Modules;
use crate::host::run::places;
use crate::host::run::stage::{Part, START_SECONDS};
use crate::host::values::grid::Grid;
use crate::outside;
use crate::record::Activations;
use crate::terminal;
use crate::words::{counted, format_bytes, in_lines, rounded};

/// The largest stored plan in bytes.
const MAX_PLAN: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub script: String,
    pub flags: Vec<String>,
    pub passes: Vec<Pass>,
    pub machines: Vec<Machine>,
    pub files: Vec<String>,
    /// Folders of stored results that the script loads.
    #[serde(default)]
    pub loaded: Vec<String>,
    pub effects: Vec<String>,
    pub notes: Vec<String>,
    /// Problems that would occur, with reasons.
    #[serde(default)]
    pub wrong: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub id: String,
    pub gpu: String,
    /// USD per hour; None if unknown.
    pub price: Option<f64>,
    pub minutes: f64,
    pub dollars: Option<f64>,
    /// The machine ends itself after this time.
    pub max_hours: f64,
    pub keep_running: bool,
}

/// The sentence about a script that needs neither a pass nor a machine. `loaded` are the stored
/// results that it has loaded.
fn nothing(loaded: &[String]) -> String {
    let places = match loaded {
        [] => return "No pass through a model, and no machine.\n".into(),
        [one] => one.clone(),
        [first, last] => format!("{first} and {last}"),
        [first, second, third] => format!("{first}, {second} and {third}"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
    };
    format!("Nothing needs to be computed: what it asks for is stored in {places}.\n")
}

impl Plan {
    /// The plan of a dry run's `context`. Earlier runs of this project improve its durations.
    pub fn of(context: &Context) -> Option<Self> {
        let stage = context.plan()?;
        let earlier: Vec<Pass> = all(&context.results()).into_iter().flat_map(|plan| plan.passes).collect();
        let mut passes = passes::list(stage.here()?, HERE, None, &earlier);
        stage.here()?.wrong().into_iter().for_each(|what| stage.goes_wrong(what));
        let mut machines = Vec::new();
        for part in stage.machines() {
            let planned = part.planned.as_ref()?;
            planned.wrong().into_iter().for_each(|what| stage.goes_wrong(what));
            let mut own = passes::list(planned, &place(&part), part.price, &earlier);
            machines.push(machine(&part, &own));
            passes.append(&mut own);
        }
        Some(Self {
            script: context.script.display().to_string(),
            flags: context.flags.clone(),
            passes,
            machines,
            files: stage.files(),
            loaded: stage.loaded(),
            effects: stage.effects(),
            notes: stage.notes(),
            wrong: stage.wrong(),
        })
    }

    fn file(&self, results: &Path) -> PathBuf {
        path(results, &self.script, &self.flags)
    }

    /// Stores the plan with the measurements of earlier runs.
    pub fn store(&mut self, context: &Context) -> Result<PathBuf> {
        let results = context.results();
        if let Some(before) = stored(&results, &self.script, &self.flags) {
            for pass in &mut self.passes {
                let same = |other: &&Pass| other.key() == pass.key();
                pass.actual = before.passes.iter().find(same).and_then(|other| other.actual.clone());
            }
        }
        let file = self.file(&results);
        self.write(context, &file)?;
        Ok(file)
    }

    fn write(&self, context: &Context, file: &Path) -> Result<()> {
        places::within(context, "the plan", file, "results")?;
        let mut text = serde_json::to_vec_pretty(self).expect("plans are JSON");
        text.push(b'\n');
        disk::write(file, &text)
    }

    /// Minutes of all passes and starts, one after the other; and with all machines in parallel.
    fn minutes(&self) -> (f64, f64) {
        let here: f64 = self.passes.iter().filter(|pass| pass.place == HERE).map(|pass| pass.minutes).sum();
        let there = self.machines.iter().map(|machine| machine.minutes);
        (here + there.clone().sum::<f64>(), there.fold(here, f64::max))
    }

    /// Cost in USD of all machines; None if a price is unknown.
    pub fn dollars(&self) -> Option<f64> {
        self.machines.iter().try_fold(0.0, |sum, machine| Some(sum + machine.dollars?))
    }

    /// The text of the plan for a terminal. `whole` is true if the script ran to its end.
    pub fn text(&self, whole: bool) -> String {
        let words = [&[self.script.clone()][..], &self.flags[..]].concat().join(" ");
        let mut text = format!("Plan of {words}: nothing was done.\n");
        if !self.passes.is_empty() {
            text += &self.pass_table();
        }
        if !self.machines.is_empty() {
            text += &self.machine_table();
        }
        if !self.passes.is_empty() || !self.machines.is_empty() {
            text += &self.total(whole);
        } else if whole && self.wrong.is_empty() {
            text += &nothing(&self.loaded);
        }
        for wrong in &self.wrong {
            text += &format!("Would fail: {wrong}\n");
        }
        text += &folders(&self.files);
        for effect in &self.effects {
            text += &format!("Would {effect}\n");
        }
        for note in &self.notes {
            text += &format!("Note: {note}\n");
        }
        if let Some(compared) = self.compared(terminal::width()) {
            text += &format!("Last time:\n{compared}");
        }
        in_lines(&text, terminal::width())
    }

    fn total(&self, whole: bool) -> String {
        let (all, longest) = self.minutes();
        let read: u64 = self.passes.iter().map(|pass| pass.read_bytes).sum();
        let memory = self.passes.iter().map(|pass| pass.memory_bytes).max().unwrap_or(0);
        let until = if whole { "Total" } else { "Up to the error" };
        let mut text = format!(
            "{until}: {}, {} read, about {} of memory, {}",
            counted(self.passes.len(), "pass"),
            format_bytes(read as f64),
            format_bytes(memory as f64),
            duration(all),
        );
        if self.machines.len() > 1 {
            text += &format!(" ({} when machines work at the same time)", duration(longest));
        }
        if !self.machines.is_empty() {
            let dollars = self.dollars().map_or("$ not known".to_string(), |dollars| format!("${dollars:.2}"));
            text += &format!(", {dollars}");
        }
        text + "\n"
    }

    fn pass_table(&self) -> String {
        let columns = ["model", "minutes", "memory", "read", "download", "tokens", "where", "by"];
        let row = |pass: &Pass| {
            let bytes = |bytes: u64| if bytes == 0 { "–".to_string() } else { format_bytes(bytes as f64) };
            vec![
                pass.model.clone(),
                format!("{:.2}", pass.minutes),
                bytes(pass.memory_bytes),
                bytes(pass.read_bytes),
                bytes(pass.download_bytes),
                format!("{} x {}", pass.num_sequences, pass.sequence_length),
                pass.place.clone(),
                pass.basis.clone(),
            ]
        };
        drawn(&columns, self.passes.iter().map(row).collect(), 1..6, terminal::width())
    }

    fn machine_table(&self) -> String {
        let columns = ["machine", "gpu", "$/h", "minutes", "$", "ends itself after"];
        let money = |amount: Option<f64>| amount.map_or("?".to_string(), |amount| format!("{amount:.2}"));
        let row = |machine: &Machine| {
            let end = if machine.keep_running { ", kept running" } else { "" };
            vec![
                machine.id.clone(),
                machine.gpu.clone(),
                money(machine.price),
                format!("{:.2}", machine.minutes),
                money(machine.dollars),
                format!("{} h{end}", machine.max_hours),
            ]
        };
        drawn(&columns, self.machines.iter().map(row).collect(), 2..5, terminal::width())
    }

    /// Planned and measured values side by side, if something was measured, in lines of at most
    /// `width` characters.
    pub fn compared(&self, width: Option<usize>) -> Option<String> {
        let row = |pass: &Pass| {
            let actual = pass.actual.as_ref()?;
            let pair = |planned: String, actual: String| format!("{planned} → {actual}");
            let bytes = |planned: u64, actual: u64| pair(format_bytes(planned as f64), format_bytes(actual as f64));
            let dollars = pass.dollars.unwrap_or(0.0);
            Some(vec![
                pass.model.clone(),
                pair(format!("{:.2}", pass.minutes), format!("{:.2}", actual.minutes)),
                bytes(pass.read_bytes, actual.read_bytes),
                bytes(pass.memory_bytes, actual.memory_bytes),
                pair(format!("{dollars:.2}"), format!("{:.2}", actual.dollars)),
            ])
        };
        let mut rows: Vec<_> = self.passes.iter().filter_map(row).collect();
        let mut columns = vec!["planned → actual", "minutes", "read", "memory", "$"];
        if self.machines.is_empty() {
            // Nothing cost money.
            columns.pop();
            rows.iter_mut().for_each(|row| drop(row.pop()));
        }
        (!rows.is_empty()).then(|| drawn(&columns, rows, 1..columns.len(), width))
    }
}

/// Minutes in words. A positive duration is never shown as zero.
fn duration(minutes: f64) -> String {
    match minutes > 0.0 && minutes < 0.05 {
        true => "less than 0.1 min".to_string(),
        false => format!("{} min", rounded(minutes, 1)),
    }
}

/// The place of a pass in words.
fn place(part: &Part) -> String {
    format!("{} {}", part.provider, part.gpu).trim().to_string()
}

fn machine(part: &Part, passes: &[Pass]) -> Machine {
    let start = if part.provider == ProviderKind::RunPod { START_SECONDS / 60.0 } else { 0.0 };
    let minutes = start + passes.iter().map(|pass| pass.minutes).sum::<f64>();
    Machine {
        id: part.task.clone().unwrap_or_else(|| part.id.clone()),
        gpu: part.gpu.clone(),
        price: part.price,
        minutes,
        dollars: part.price.map(|price| price * minutes / 60.0),
        max_hours: part.max_hours,
        keep_running: part.keep_running,
    }
}

/// "Would write results/x/ (20 files)", a line per folder.
fn folders(files: &[String]) -> String {
    let mut text = String::new();
    let mut rest = files;
    while let Some(first) = rest.first() {
        let folder = Path::new(first).parent().unwrap_or(Path::new(""));
        let count = rest.iter().take_while(|file| Path::new(file).parent() == Some(folder)).count();
        text += &match count {
            1 => format!("Would write {first}\n"),
            count => format!("Would write {}/ ({})\n", folder.display(), counted(count, "file")),
        };
        rest = &rest[count..];
    }
    text
}

fn drawn(columns: &[&str], rows: Vec<Vec<String>>, right: std::ops::Range<usize>, width: Option<usize>) -> String {
    let columns = columns.iter().map(|column| column.to_string()).collect();
    format!("{}\n", Grid::new(columns, rows).right(right).drawn(width))
}

fn path(results: &Path, script: &str, flags: &[String]) -> PathBuf {
    let words = format!("{script}\0{}", flags.join("\0"));
    let hash = format!("{:x}", Sha256::digest(words));
    let stem = Path::new(script).file_stem().unwrap_or_default().to_string_lossy();
    results.join(".plans").join(format!("{stem}-{}.json", &hash[..8]))
}

fn read(file: &Path) -> Option<Plan> {
    serde_json::from_slice(&outside::read(file, MAX_PLAN).ok()?).ok()
}

fn stored(results: &Path, script: &str, flags: &[String]) -> Option<Plan> {
    read(&path(results, script, flags))
}

/// All stored plans, by name.
fn all(results: &Path) -> Vec<Plan> {
    let entries = std::fs::read_dir(results.join(".plans")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().filter_map(|file| read(file)).collect()
}

/// The comparison of a run with its plan, if there is one.
pub fn compare(context: &Context) -> Result<Option<String>> {
    let results = context.results();
    let script = context.script.display().to_string();
    let Some(mut plan) = stored(&results, &script, &context.flags) else { return Ok(None) };
    let measured = context.measured.lock().expect("no panic under this lock");
    let mut any = false;
    for acts in measured.iter() {
        let model = shown(&acts.model.id);
        let key = (model.as_str(), acts.num_sequences, acts.sequence_length);
        if let Some(pass) = plan.passes.iter_mut().find(|pass| pass.key() == key) {
            pass.actual = Some(actual(acts));
            any = true;
        }
    }
    if !any {
        return Ok(None);
    }
    plan.write(context, &plan.file(&results))?;
    Ok(plan.compared(terminal::note_width()))
}

fn actual(acts: &Activations) -> Actual {
    let measured = &acts.measurements;
    Actual {
        minutes: measured.wall_seconds / 60.0,
        read_bytes: measured.bytes_read,
        memory_bytes: measured.peak_memory_bytes,
        dollars: measured.machine_cost_usd,
    }
}

/// True if a script, or a module it imports, has its own dry run.
pub fn has_dry_run(script: &Path, project: &Path) -> bool {
    let modules = Modules::new(project.to_path_buf());
    let engine = syntax::engine();
    let mut todo = vec![(script.display().to_string(), text_of(script).unwrap_or_default())];
    let mut seen = std::collections::BTreeSet::new();
    while let Some((name, source)) = todo.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if source.contains("dry_run:") || source.contains("dry_run =") {
            return true;
        }
        if let Ok(ast) = parsing::parse(&engine, &source) {
            let imports = import_statements(&ast);
            todo.extend(imports.iter().filter_map(|(path, ..)| modules.find(Some(&name), path)));
        }
    }
    false
}
