//! Tests that a run that is interrupted inside a model continues there: it ends with the same bytes
//! and does not read finished layers again.
//!
//! Real processes are killed and interrupted here; what needs every layer or every kind of damage runs in this process.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use outlier::engine::extract;
use outlier::error::{Error, Kind};
use outlier::hub::{self, Access};
use outlier::progress::{Event, Progress, Silent};
use outlier::record::{
    Activations, CheckpointArgs, ComputeDtype, ExtractArgs, Keep, LoadArgs, MeasureArgs, Measurements, Site,
    TokenSource, Tokens,
};
use outlier::results::sealed;
use outlier::spec::inventory;
use outlier::text::load_tokens;
use outlier::weights::open;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::interrupt::{INTERRUPTED, ending, interrupt, many_tokens, start, wait_until};
use crate::oracle::{fixtures, kinds, load_args};
use crate::project::{FULL, Project};

const CHECKPOINT: &str = "checkpoints/test";

/// The header of a checkpoint, which follows a mark of 24 bytes and its length. Nothing else is
/// read, because the tests poll often.
fn header(path: &Path) -> Option<Value> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut before = [0; 32];
    file.read_exact(&mut before).ok()?;
    let length = u64::from_le_bytes(before[24..].try_into().ok()?);
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    serde_json::from_slice(&header).ok()
}

/// Number of layers whose work is in a checkpoint, 0 without one.
fn saved(project: &Project) -> u64 {
    header(&project.path(CHECKPOINT)).map_or(0, |header| header["layer"].as_u64().unwrap())
}

/// Whether the file is the record of a finished pass.
fn is_finished(project: &Project) -> bool {
    header(&project.path(CHECKPOINT)).is_some_and(|header| header["finished"].is_object())
}

// ------------------------------------------------------------------------------------------------------------ killed

/// Every architecture of the sweep, with its number of layers.
const MINIATURES: &[(&str, u64)] = &[
    ("olmoe", 10),
    ("gpt_oss", 10),
    ("qwen3_moe", 12),
    ("mixtral", 8),
    ("qwen3_next", 12),
    ("glm4_moe", 10),
    ("gpt_oss_large", 14),
];
const KILLS_PER_MODEL: usize = 3;
/// The largest number of milliseconds between the awaited layer and a kill.
const LATEST_MS: u64 = 60;

/// Analyses a miniature, saves the record as `results/<name>` and prints the measurements.
fn script(miniature: &str, options: &str, name: &str) -> String {
    format!(
        "let model = load_model(miniature_model(\"{miniature}\").path);
         let acts = model.extract_layernorms(load_tokens(#{{ ids: \"ids.json\" }}), #{{ {options} }});
         save_results(\"{name}\", #{{ activations: acts, found: acts.detect_outliers() }});
         print(acts.measurements.to_json());"
    )
}

fn some_tokens(project: &Project) {
    let ids: Vec<Vec<u32>> = (0..12).map(|s| (0..256).map(|t| (s * 31 + t * t) % 256).collect()).collect();
    project.file("ids.json", serde_json::to_string(&ids).unwrap());
}

/// Starts a script and kills it some time after `layer` layers are in its checkpoint. Returns false
/// if it ended before.
fn killed(project: &Project, script: &str, layer: u64, delay: u64) -> bool {
    project.file("script.rhai", script);
    let mut child = project.command(&["run", "script.rhai"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while saved(project) < layer && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(delay));
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn killed_at_random_layers_it_ends_with_the_same_bytes() {
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let mut kills = Vec::new();
    for (miniature, layers) in MINIATURES {
        let project = Project::new();
        some_tokens(&project);
        project.script(&script(miniature, "", "whole")).ok();
        let whole = project.bytes("results/whole/activations.stats");
        let with_checkpoint =
            script(miniature, &format!("checkpoint: \"{CHECKPOINT}\", checkpoint_layers: 1"), "resumed");
        let mut done = 0;
        while done < KILLS_PER_MODEL {
            let (layer, delay) = (random.random_range(1..layers - 1), random.random_range(0..LATEST_MS));
            if !killed(&project, &with_checkpoint, layer, delay) {
                assert_eq!(saved(&project), 0, "{miniature}: a finished run has removed its checkpoint");
                continue;
            }
            if is_finished(&project) {
                // Killed behind the pass: the next run takes it up and saves it.
                project.script(&with_checkpoint).ok();
                assert!(project.bytes("results/resumed/activations.stats") == whole, "{miniature} differs");
                continue;
            }
            let at = saved(&project);
            assert!(at >= layer, "{miniature}: {at} layers are saved, {layer} were");
            let outcome = project.script(&with_checkpoint);
            assert!(
                outcome.stderr.contains(&format!("going on after layer {at}, from {CHECKPOINT}")),
                "{}",
                outcome.stderr
            );
            let measured = outcome.json();
            assert_eq!(measured["resumed_at_layer"], at, "{miniature}");
            assert_eq!(measured["bytes_read"], measured["bytes_needed"], "{miniature}");
            assert!(
                project.bytes("results/resumed/activations.stats") == whole,
                "{miniature} differs after {at} layers"
            );
            assert_eq!(project.files("checkpoints"), [""; 0], "{miniature}");
            kills.push((miniature, at));
            done += 1;
        }
    }
    println!("killed after these layers: {kills:?}");
    assert!(kills.len() >= 20);
}

#[test]
fn killed_again_and_again_it_keeps_all_activations() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for miniature in ["qwen3_next", "gpt_oss"] {
        let project = Project::new();
        some_tokens(&project);
        let keep = "keep: \"full\", out: \"results/full\", logits: true";
        project.script(&script(miniature, keep, "run")).ok();
        let (stats, full) = ("results/run/activations.stats", format!("results/full/{FULL}"));
        let whole = (project.bytes(stats), project.bytes(&full));
        std::fs::remove_dir_all(project.path("results/full")).unwrap();
        let again = script(miniature, &format!("{keep}, checkpoint: \"{CHECKPOINT}\", checkpoint_layers: 2"), "run");
        for layer in [2, 4, 8] {
            killed(&project, &again, layer, random.random_range(0..LATEST_MS));
        }
        if is_finished(&project) {
            project.script(&again).ok();
            assert!((project.bytes(stats), project.bytes(&full)) == whole, "{miniature} differs");
            continue;
        }
        // Nothing, should the last one have been too quick for us.
        let at = Some(saved(&project)).filter(|layer| *layer > 0);
        println!("{miniature}: killed three times, at last after layer {at:?}");
        let measured = project.script(&again).json();
        assert_eq!(measured["resumed_at_layer"].as_u64(), at, "{miniature}");
        assert!((project.bytes(stats), project.bytes(&full)) == whole, "{miniature} differs");
        assert_eq!(project.files("results/full"), [FULL], "{miniature}");
        assert_eq!(project.files("checkpoints"), [""; 0], "{miniature}");
    }
}

#[test]
fn after_ctrl_c_it_goes_on() {
    let project = Project::new();
    many_tokens(&project);
    project.script(&script("olmoe", "", "whole")).ok();
    // No checkpoint is due so early; the one that the interruption leaves is the only one.
    let options = format!("checkpoint: \"{CHECKPOINT}\", keep: \"full\", out: \"results/full\"");
    project.file("script.rhai", script("olmoe", &options, "resumed"));
    let mut child = start(&project, &["run", "script.rhai"]);
    let file = || project.files("results/full").first().map(|name| project.path("results/full").join(name));
    // The norms of two layers, 8 MB each. The ids are written first, behind them.
    let some_layers = || file().is_some_and(|file| file.metadata().is_ok_and(|file| file.blocks() * 512 > 36_000_000));
    wait_until(&mut child, "the first layers", some_layers);
    interrupt(&child);
    let outcome = ending(child).ends(INTERRUPTED);
    let layer = saved(&project);
    assert!(layer >= 1);
    assert!(
        outcome.stderr.contains(&format!("hint: run it again: it will go on after layer {layer}")),
        "{}",
        outcome.stderr
    );
    let measured = project.run(&["run", "script.rhai"]).json();
    assert_eq!(measured["resumed_at_layer"], layer);
    assert_eq!(project.files("results/full"), [FULL]);
    let folds = |name: &str| crate::checkpoint::read(&project.path(&format!("results/{name}/activations.stats")));
    assert!(folds("whole") == folds("resumed"));
}

#[test]
fn a_killed_script_of_the_sweep_goes_on_inside_its_model() {
    let project = Project::new();
    project.copy("scripts", "scripts").copy("stdlib/dettmers.rhai", "stdlib/dettmers.rhai");
    // The same with a checkpoint after every layer, so that a short run has some.
    let text = project.text("stdlib/dettmers.rhai");
    let option = "checkpoint: \"checkpoints/\" + result_name(experiment, flags),";
    assert!(text.contains(option));
    let run = || start(&project, &["run", "scripts/04_mixtral_8x7b.rhai", "--miniature"]);
    let stats = "results/miniature_mixtral_8x7b/activations.stats";
    ending(run()).ends(0);
    let whole = project.bytes(stats);
    std::fs::remove_dir_all(project.path("results/miniature_mixtral_8x7b")).unwrap();
    project.file("stdlib/dettmers.rhai", text.replace(option, &format!("{option} checkpoint_layers: 1,")));
    let checkpoint = project.path("checkpoints/miniature_mixtral_8x7b");
    let mut child = run();
    wait_until(&mut child, "a checkpoint", || checkpoint.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!project.has(stats));
    let outcome = ending(run()).ends(0);
    assert!(outcome.stderr.contains("from checkpoints/miniature_mixtral_8x7b"), "{}", outcome.stderr);
    assert!(project.bytes(stats) == whole);
    assert!(!checkpoint.exists());
}

// --------------------------------------------------------------------------------------------------- in this process

/// Collects notes, and asks to stop when `stop_after` layers are done.
#[derive(Default)]
struct Watch {
    events: Mutex<Vec<Event>>,
    stop_after: Option<u64>,
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn interrupted(&self) -> bool {
        let stop = |event: &Event| matches!(event, Event::Step { done, .. } if Some(*done) >= self.stop_after);
        self.stop_after.is_some() && self.events.lock().unwrap().iter().any(stop)
    }
}

/// A piece of work and its folder.
struct Work {
    folder: TempDir,
    model: PathBuf,
    load: LoadArgs,
    tokens: Tokens,
    args: ExtractArgs,
}

struct Outcome {
    /// The record without measurements.
    acts: Activations,
    measured: Measurements,
    events: Vec<Event>,
    /// `activations.safetensors`
    full: Option<Vec<u8>>,
}

impl Work {
    /// A fixture with a checkpoint after every layer.
    fn on(model: &Path) -> Self {
        let path = model.join("reference.safetensors").display().to_string();
        let tokens = load_tokens(&TokenSource::IdsSafetensors { path, tensor: "input_ids".into() }, &Silent).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = CheckpointArgs { path: folder.path().join("c/point").display().to_string(), layers: Some(1) };
        let args = ExtractArgs { checkpoint: Some(checkpoint), ..ExtractArgs::default() };
        // Nothing is read ahead, so that bytes can be counted.
        let load = LoadArgs { chunk_layers: 1, ..load_args(model, ComputeDtype::F32) };
        Self { folder, model: model.to_path_buf(), load, tokens, args }
    }

    fn fixture(name: &str) -> Self {
        Self::on(&fixtures().join(name))
    }

    /// Measures everything that the model has.
    fn measuring_all(mut self) -> Self {
        let measure = MeasureArgs { sites: vec![], observe: vec![], ..MeasureArgs::default() };
        self.args = ExtractArgs { measure, logits: true, ..self.args };
        self
    }

    fn keeping_all(mut self) -> Self {
        let out = self.folder.path().join("full").display().to_string();
        self.args = ExtractArgs { keep: Keep::Full, out: Some(out), logits: true, ..self.args };
        self
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.path().join("c/point")
    }

    fn stopped_after(&self, stop_after: Option<u64>) -> Result<Outcome, (Error, Vec<Event>)> {
        let watch = Watch { stop_after, ..Watch::default() };
        let files = hub::open(&self.model.display().to_string(), None, Access::Download, &Silent).unwrap();
        let model = open(files, &self.load).unwrap();
        let outcome = extract(&model, &self.tokens, &self.args, &watch);
        let events = watch.events.into_inner().unwrap();
        let acts = outcome.map_err(|error| (error, events.clone()))?;
        // The finished pass stays until somebody saves it, which nobody does here.
        let left = std::fs::read_dir(self.folder.path().join("c")).unwrap().map(|entry| entry.unwrap().path());
        let finished: Vec<PathBuf> =
            left.filter(|path| header(path).is_some_and(|header| header["finished"].is_object())).collect();
        assert_eq!(finished.len(), 1, "{finished:?}");
        std::fs::remove_file(&finished[0]).unwrap();
        let measured = acts.measurements.clone();
        let full = self.args.out.as_ref().map(|out| std::fs::read(Path::new(out).join(FULL)).unwrap());
        Ok(Outcome { acts: Activations { measurements: Measurements::default(), ..acts }, measured, events, full })
    }

    fn run(&self) -> Outcome {
        self.stopped_after(None).unwrap_or_else(|(error, _)| panic!("{}: {error}", self.model.display()))
    }

    /// Runs the first `layer` layers and leaves their checkpoint.
    fn begin(&self, layer: u64) -> Vec<Event> {
        let Err((error, events)) = self.stopped_after(Some(layer)) else { panic!("not interrupted") };
        assert_eq!(error.kind, Kind::Interrupted, "{error}");
        assert_eq!(error.hint, Some(format!("run it again: it will go on after layer {layer}")));
        assert_eq!(header(&self.checkpoint()).unwrap()["layer"], layer);
        events
    }

    /// Checks that the work begins at the first layer although there is a file, says why, and gives
    /// the right outcome.
    #[track_caller]
    fn begins_again(&self, why: &str, whole: &Outcome) {
        let again = self.run();
        let warned = |event: &&Event| matches!(event, Event::Warning(text) if text.contains(why));
        assert_eq!(again.events.iter().filter(warned).count(), 1, "{why:?} in {:?}", again.events);
        assert_eq!(again.measured.resumed_at_layer, None);
        assert!(again.acts == whole.acts && again.full == whole.full);
        assert_eq!(self.checkpoint().exists(), why.contains("other work"), "only that of other work stays");
    }
}

/// Number of bytes that every run reads before its first layer. The embeddings for each layer are
/// made anew and are not in checkpoints.
fn layer_embeddings(work: &Work) -> u64 {
    let files = hub::open(&work.model.display().to_string(), None, Access::Download, &Silent).unwrap();
    let spec = open(files, &work.load).unwrap().spec;
    let Some(own) = &spec.layer_embeddings else { return 0 };
    let ids: BTreeSet<u32> = work.tokens.ids.iter().flatten().copied().collect();
    let rows = ids.len() * (spec.embedding.shape[1] + own.table.shape[1]);
    let made_with: usize = inventory::parts(own).iter().map(|part| part.elements()).sum();
    // In bf16.
    2 * (rows + made_with) as u64
}

fn warnings(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Warning(_))).count()
}

/// Dense layers, experts, packed experts, a state, and keys that later layers borrow.
const ON_GPUS: [&str; 5] = ["gemma4_e", "gpt_oss", "llama", "mixtral", "qwen3_next"];

#[test]
fn every_layer_of_every_kind_can_be_the_last() {
    // A GPU resumes as the CPU does.
    let on_a_gpu = std::env::var_os("OUTLIER_TEST_DEVICE").is_some();
    let folders: Vec<_> = match on_a_gpu {
        true => ON_GPUS.iter().map(|name| fixtures().join(name)).collect(),
        false => kinds().collect(),
    };
    for folder in folders {
        let name = folder.display();
        let work = Work::on(&folder).keeping_all();
        let whole = work.run();
        let path = work.args.checkpoint.clone().unwrap().path;
        let layers = whole.acts.num_layers as u64;
        let written = |first: u64, last: u64| {
            (first..=last).map(|layer| Event::Checkpoint { path: path.clone(), layer }).collect::<Vec<_>>()
        };
        let finished = |first: u64| {
            let record = Event::Checkpoint { path: path.clone(), layer: layers };
            written(first, layers).into_iter().chain([record]).collect::<Vec<_>>()
        };
        let checkpoints = |events: &[Event]| {
            events.iter().filter(|event| matches!(event, Event::Checkpoint { .. })).cloned().collect::<Vec<_>>()
        };
        assert_eq!(checkpoints(&whole.events), finished(1), "{name}: the head is still to come after the last");
        // The last stop is in the head.
        for layer in 1..=layers {
            assert_eq!(checkpoints(&work.begin(layer)), written(1, layer), "{name}");
            let resumed = work.run();
            let (before, measured) = (resumed.measured.bytes_read_before, &resumed.measured);
            assert!(resumed.acts == whole.acts, "{name}: the record differs after layer {layer}");
            assert!(resumed.full == whole.full, "{name}: activations differ after layer {layer}");
            assert_eq!(measured.resumed_at_layer, Some(layer as usize), "{name}");
            assert_eq!(measured.bytes_read, measured.bytes_needed, "{name}");
            let again = if layer < layers { layer_embeddings(&work) } else { 0 };
            assert_eq!(
                before + measured.bytes_read,
                whole.measured.bytes_read + again,
                "{name}: no byte is read twice"
            );
            assert_eq!(resumed.events[1], Event::Resumed { path: path.clone(), layer }, "{name}");
            assert_eq!(checkpoints(&resumed.events), finished(layer + 1), "{name}");
            assert_eq!(warnings(&resumed.events), 0, "{name}: {:?}", resumed.events);
            assert!(!work.checkpoint().exists());
        }
    }
}

#[test]
fn damage_is_reported_and_the_run_begins_again() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let work = Work::fixture("mixtral").keeping_all();
    let whole = work.run();
    for round in 0..20 {
        work.begin(2);
        let mut data = std::fs::read(work.checkpoint()).unwrap();
        let at = random.random_range(24..data.len());
        match round % 2 {
            0 => data[at] ^= 1 << random.random_range(0..8),
            _ => data.truncate(at),
        }
        std::fs::write(work.checkpoint(), data).unwrap();
        work.begins_again("point is not used (", &whole);
    }
    work.begin(2);
    std::fs::write(work.checkpoint(), "").unwrap();
    work.begins_again("point is not used (", &whole);
}

#[test]
fn measurements_of_layers_that_are_not_done_are_not_used() {
    let work = Work::fixture("olmoe").measuring_all();
    let whole = work.run();
    work.begin(2);
    // Whoever sends a checkpoint can give it sound checksums.
    let (header, mut reader) = sealed::Reader::open(&work.checkpoint()).unwrap().unwrap();
    let mut payload = Vec::new();
    reader.read_to_end(&mut payload).unwrap();
    drop(reader);
    let first_layer = b"\xa5layer\x00";
    let found: Vec<usize> =
        (0..payload.len() - first_layer.len()).filter(|at| payload[*at..].starts_with(first_layer)).collect();
    assert!(found.len() > 10, "{found:?}");
    found.into_iter().for_each(|at| payload[at + first_layer.len() - 1] = 0x7f);
    let mut writer = sealed::Writer::create(&work.checkpoint(), &header).unwrap();
    writer.write_all(&payload).unwrap();
    writer.finish().unwrap();
    work.begins_again("point is not used (its measurements are of other layers", &whole);
}

#[test]
fn a_checkpoint_of_other_work_is_not_used() {
    let mut work = Work::fixture("olmoe");
    work.begin(2);
    let file = std::fs::read(work.checkpoint()).unwrap();
    // What differs, and how the program calls it.
    type Change = fn(&mut Work);
    let changes: &[(&str, Change)] = &[
        ("tokens", |work| {
            let mut ids = work.tokens.ids.clone();
            ids[0][3] ^= 1;
            work.tokens = load_tokens(&TokenSource::Ids { ids }, &Silent).unwrap();
        }),
        ("thresholds", |work| work.args.thresholds = vec![6.25]),
        ("memory_budget", |work| work.args.memory_budget += 1),
        ("logits", |work| work.args.logits = true),
        ("dtype", |work| work.load.dtype = ComputeDtype::Bf16),
        ("model", |work| {
            // The same shapes, one other number.
            let copy = work.folder.path().join("model");
            std::fs::create_dir(&copy).unwrap();
            for entry in std::fs::read_dir(&work.model).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
            crate::checkpoint::change(&copy.join("model.safetensors"), |arrays| {
                arrays.get_mut("model.norm.weight").unwrap().data[0] ^= 1;
            });
            work.model = copy;
        }),
        ("keep", |work| {
            work.args.keep = Keep::Full;
            work.args.out = Some(work.folder.path().join("full").display().to_string());
        }),
    ];
    for (what, change) in changes {
        let before = (work.tokens.clone(), work.load.clone(), work.model.clone(), work.args.clone());
        change(&mut work);
        std::fs::remove_file(work.checkpoint()).ok();
        let whole = work.run();
        std::fs::write(work.checkpoint(), &file).unwrap();
        work.begins_again(&format!("point is of other work (its {what} differ)"), &whole);
        assert!(std::fs::read(work.checkpoint()).unwrap() == file, "{what}: it was written over");
        (work.tokens, work.load, work.model, work.args) = before;
    }
    // Where the model is and how much of it is in memory is not the work.
    std::fs::write(work.checkpoint(), &file).unwrap();
    work.load = LoadArgs { id: "elsewhere".into(), chunk_layers: 3, ..work.load };
    assert_eq!(work.run().measured.resumed_at_layer, Some(2));
}

#[test]
fn activations_that_are_gone_cannot_be_continued() {
    let work = Work::fixture("llama").keeping_all();
    let whole = work.run();
    let full = PathBuf::from(work.args.out.clone().unwrap());
    let unfinished = || {
        let mut files = std::fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "partial")).unwrap()
    };
    work.begin(2);
    std::fs::remove_file(unfinished()).unwrap();
    work.begins_again("belongs to activations that are gone", &whole);
    work.begin(2);
    std::fs::File::options().write(true).open(unfinished()).unwrap().set_len(5000).unwrap();
    work.begins_again("belongs to activations that are gone", &whole);
    // What other work has left in the folder goes when this work begins.
    work.begin(1);
    let left = unfinished();
    let mut other = Work::fixture("llama").keeping_all();
    other.args.out = work.args.out.clone();
    other.args.thresholds = vec![9.0];
    other.run();
    assert!(!left.exists());
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_no_reason_to_stop() {
    let project = Project::new();
    some_tokens(&project);
    project.script(&script("olmoe", "", "whole")).ok();
    let whole = project.bytes("results/whole/activations.stats");
    let warned =
        |stderr: &str| stderr.lines().filter(|line| line.starts_with("warning: no checkpoint after layer")).count();
    // Its folder is a file.
    let outcome = project.script(&script("olmoe", "checkpoint: \"ids.json/x\", checkpoint_layers: 1", "a")).ends(0);
    assert_eq!(warned(&outcome.stderr), 1, "{}", outcome.stderr);
    assert!(project.bytes("results/a/activations.stats") == whole);
    // No room: files may have 1 MiB, results have less, the residual stream more.
    project.file("script.rhai", script("olmoe", &format!("checkpoint: \"{CHECKPOINT}\", checkpoint_layers: 1"), "b"));
    let program = project.command(&["run", "script.rhai"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" run script.rhai"]).arg(program.get_program());
    limited.current_dir(project.path("")).envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let outcome = crate::project::Outcome::of(limited.output().unwrap()).ends(0);
    assert_eq!(warned(&outcome.stderr), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("File too large"), "{}", outcome.stderr);
    assert!(project.bytes("results/b/activations.stats") == whole);
    assert_eq!(project.files("checkpoints"), [""; 0]);
}

#[test]
fn short_runs_leave_no_trace() {
    let project = Project::new();
    some_tokens(&project);
    let outcome = project.script(&script("olmoe", &format!("checkpoint: \"{CHECKPOINT}\""), "a"));
    assert_eq!(outcome.json()["resumed_at_layer"], Value::Null);
    assert!(!project.has("checkpoints"));
}

#[test]
fn files_of_other_kinds_are_not_touched() {
    let project = Project::new();
    some_tokens(&project);
    let ids = project.bytes("ids.json");
    let run = |options: &str| script("olmoe", options, "a");
    let names = "name another file";
    project.refuses(&run("checkpoint: \"ids.json\""), 1, "ids.json exists and is not a checkpoint", names);
    project.refuses(&run("checkpoint: \"results\""), 1, "results exists and is not a checkpoint", names);
    assert_eq!(project.bytes("ids.json"), ids);
    let relative = "relative to the folder the program runs in";
    for path in ["/tmp/x", "../x", "a/../../x", "", "a/"] {
        let message = format!("`checkpoint` is {path:?}, not a file in the project");
        project.refuses(&run(&format!("checkpoint: \"{path}\"")), 1, &message, relative);
    }
    project.refuses(&run("checkpoint_layers: 2"), 1, "`checkpoint_layers` goes with `checkpoint`", "add checkpoint:");
    project.refuses(
        &run("checkpoint: \"x\", checkpoint_layers: 0"),
        1,
        "`checkpoint_layers` is 0",
        "1 is after every layer",
    );
}

#[test]
fn measurements_that_are_cut_off_after_any_layer_end_with_the_same_numbers() {
    for (name, layers) in [("llama", 4), ("olmoe", 3), ("qwen3_next", 4)] {
        let whole = Work::fixture(name).measuring_all().run().acts;
        assert!(!whole.measures.is_empty() && !whole.sites.is_empty(), "{name}");
        for layer in 1..=layers {
            let work = Work::fixture(name).measuring_all();
            work.begin(layer);
            let resumed = work.run();
            assert_eq!(resumed.measured.resumed_at_layer, Some(layer as usize), "{name}");
            assert!(resumed.acts == whole, "{name}, cut off after layer {layer}");
        }
    }
}

#[test]
fn chosen_activations_that_are_cut_off_after_any_layer_end_with_the_same_bytes() {
    let work = || {
        let mut work = Work::fixture("olmoe").keeping_all();
        let keep_sites = vec![Site::Embed, Site::ResidPost, Site::FfnIn, Site::FinalNorm];
        work.args.measure = MeasureArgs { keep_sites, keep_sequences: vec![1], ..MeasureArgs::default() };
        work
    };
    let whole = work().run();
    let layers = whole.acts.num_layers as u64;
    for layer in 1..=layers {
        let work = work();
        work.begin(layer);
        let resumed = work.run();
        assert_eq!(resumed.measured.resumed_at_layer, Some(layer as usize));
        assert!(resumed.full == whole.full, "cut off after layer {layer}");
    }
}
