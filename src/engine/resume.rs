//! Checkpoints: the state between two layers in a file, from which an interrupted run continues.
//!
//! The file contains the residual stream (4 bytes per token and feature), the state of the
//! observers (levels with 1 byte, and about 20 bytes per completed norm, sequence and feature), and
//! the expert coverage: 0.8 GB for 16 sequences of 2,048 tokens and 4,096 features in 46 layers.
//!
//! Each checkpoint replaces the last, and finally the record of the complete pass does
//! (`finished`). It has the identity of the work: weights, tokens and every option that can change
//! a bit of the result. A file of other work stays, and this work has its fingerprint in the name.
//! A damaged file is reported and not used.
//!
//! A resumed run has the same result byte by byte if the arithmetic is the same: the same program,
//! on processors with the same vector instructions.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::checkpoint_names::{checkpoints, fingerprint, fingerprinted};
use super::kept::KeptSites;
use super::lanes::Lanes;
use super::observe::{FullWriter, Observer, State};
use super::pass::{Carried, LentKv};
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};
use crate::record::{ExpertCoverage, ExtractArgs, Keep, ModelInfo, Tokens, TokensInfo};
use crate::results::{Contents, FullActivations, sealed};
use crate::tensor::Tensor;
use crate::weights::{OpenModel, ShardPlan};

/// The time between two checkpoints, and so the work that an interruption may lose.
const INTERVAL: Duration = Duration::from_secs(30);
/// The time between two checkpoints relative to the time of writing one: checkpoints take at most 3
/// % of a run.
const INTERVAL_PER_COST: u32 = 33;
/// Size in bytes of the pieces in which the residual stream is written and read.
const PIECE_BYTES: usize = 4 << 20;

/// The header key of a complete pass, with the data that is not in its record.
pub(super) const FINISHED: &str = "finished";

/// The largest stored size in bytes of the expert coverage.
const MAX_COVERAGE: u64 = 64 << 20;

/// The checkpoint of one run.
pub(super) struct Resume {
    /// The file name in the user's options.
    requested: String,
    /// The file of this work: the requested one, or one with the fingerprint in its name.
    pub name: String,
    /// The identity of the work: runs with the same identity have the same result byte by byte.
    identity: Map<String, Value>,
    every: Option<usize>,
    /// The checkpoint of an earlier run.
    pub(super) existing: Option<(Value, sealed::Reader)>,
    /// Number of layers whose work is in the file.
    saved: usize,
    last: Instant,
    cost: Duration,
    /// True if the last attempt to write has failed and the user has been told.
    failing: bool,
}

/// The owner of a checkpoint file.
pub(super) enum Owner {
    Missing,
    Ours(Value, Box<sealed::Reader>),
    /// The reason why it belongs to other work, and whether it is a complete pass.
    Others(String, bool),
    Damaged(String),
}

/// The state that was restored from a checkpoint. The observers have restored theirs.
pub(super) struct Restored {
    pub layer: usize,
    /// The residual stream of each shard.
    pub hidden: Vec<Tensor>,
    /// What later layers use of those that are done, of each share.
    pub lent: Vec<LentKv>,
    /// The streams of lanes that have begun, by group.
    pub lanes: Vec<Carried>,
    pub coverage: Vec<ExpertCoverage>,
    pub bytes_read: u64,
}

impl Resume {
    /// Returns None if no checkpoint is requested. Files that cannot be used are reported.
    pub(super) fn new(
        model: &OpenModel,
        tokens: &Tokens,
        args: &ExtractArgs,
        ladder: &[f32],
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(requested) = &args.checkpoint else { return Ok(None) };
        let samples = model.checkpoint.sample()?;
        let mut resume = Self {
            requested: requested.path.clone(),
            name: requested.path.clone(),
            identity: identity(&model.info, &tokens.info, args, ladder, &samples),
            every: requested.layers,
            existing: None,
            saved: 0,
            last: Instant::now(),
            cost: Duration::ZERO,
            failing: false,
        };
        resume.locate(progress)?;
        Ok(Some(resume))
    }

    /// The fingerprint of this work.
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.identity)
    }

    /// The header of a checkpoint after `layer` layers. The fingerprint comes first, so that it is
    /// found without parsing the rest.
    pub(super) fn header(&self, layer: usize, bytes_read: u64) -> Value {
        json!({ "mark": self.fingerprint(), "identity": self.identity, "layer": layer, "bytes_read": bytes_read })
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(&self.name)
    }

    /// Number of layers that another run can resume from.
    pub(super) fn saved(&self) -> usize {
        self.saved
    }

    /// Finds the checkpoint of earlier runs of this work, and decides which file this run writes.
    fn locate(&mut self, progress: &dyn Progress) -> Result<()> {
        let mut unused = Vec::new();
        for name in [self.requested.clone(), fingerprinted(&self.requested, &self.fingerprint())] {
            match owner_of(&name, &self.identity)? {
                Owner::Ours(header, reader) => {
                    (self.name, self.existing) = (name, Some((header, *reader)));
                    return Ok(());
                }
                Owner::Others(why, finished) => {
                    self.name = fingerprinted(&self.requested, &self.fingerprint());
                    // The complete pass will be saved by its own work, so this is not reported.
                    if !finished {
                        unused.push(format!("{name} is {why}, which stays; that of this run is {}", self.name));
                    }
                }
                Owner::Damaged(why) => unused.push(format!("{name} is not used ({why})")),
                Owner::Missing => (),
            }
        }
        for why in unused {
            progress.event(Event::Warning(format!("checkpoint {why}: starting at the first layer")));
        }
        Ok(())
    }

    /// Fingerprints of the work that has the other files next to this one.
    fn fingerprints_of_others(&self) -> Vec<String> {
        let header = |name: &String| sealed::header_of(Path::new(name));
        let names = checkpoints(&self.requested);
        names.iter().filter_map(header).filter_map(|header| header["mark"].as_str().map(String::from)).collect()
    }

    /// Called before writing, because a run of other work may have taken the file name meanwhile.
    pub(super) fn avoid_files_of_others(&mut self) -> Result<()> {
        if let Owner::Others(..) = owner_of(&self.name, &self.identity)? {
            self.name = fingerprinted(&self.requested, &self.fingerprint());
        }
        Ok(())
    }

    /// Restores the state of an earlier run of the same work, if there is one. A file that cannot
    /// be used is reported.
    fn restore(
        &mut self,
        model: &OpenModel,
        (plans, lanes): (&[ShardPlan], &Lanes),
        tokens: &Tokens,
        observers: &mut [&mut dyn Observer],
        progress: &dyn Progress,
    ) -> Option<Restored> {
        let (header, reader) = self.existing.take()?;
        match read(&header, reader, model, (plans, lanes, tokens), observers) {
            Ok(found) => {
                self.saved = found.layer;
                Some(found)
            }
            Err(error) => {
                self.discard(&format!("is not used ({})", error.message), observers, progress);
                None
            }
        }
    }

    /// Discards the restored state.
    fn discard(&mut self, why: &str, observers: &mut [&mut dyn Observer], progress: &dyn Progress) {
        self.saved = 0;
        observers.iter_mut().for_each(|observer| observer.reset());
        progress.event(Event::Warning(format!("checkpoint {} {why}: starting at the first layer", self.name)));
    }

    /// True if a checkpoint is due after `layer` layers.
    pub(super) fn is_due(&self, layer: usize) -> bool {
        match self.every {
            Some(layers) => layer.is_multiple_of(layers),
            None => self.last.elapsed() >= INTERVAL.max(INTERVAL_PER_COST * self.cost),
        }
    }

    /// Writes the state, unless the file has it already. A failure is reported, and the run
    /// continues.
    pub(super) fn save(&mut self, state: &State, read_before: u64, progress: &dyn Progress) {
        if state.layers <= self.saved {
            return;
        }
        let start = Instant::now();
        let header = self.header(state.layers, read_before + state.bytes_read);
        let fetched = state.observers.fetch().and_then(|()| self.avoid_files_of_others());
        let written = fetched.and_then(|()| write(sealed::Writer::create(self.path(), &header)?, state));
        self.cost = start.elapsed();
        self.last = Instant::now();
        self.report(state.layers, written, progress);
    }

    /// Reports the result of writing the state after `layer` layers.
    pub(super) fn report(&mut self, layer: usize, outcome: Result<()>, progress: &dyn Progress) {
        match outcome {
            Ok(()) => {
                self.saved = layer;
                self.failing = false;
                progress.event(Event::Checkpoint { path: self.name.clone(), layer: layer as u64 });
            }
            Err(error) if !self.failing => {
                self.failing = true;
                let text = format!("no checkpoint after layer {layer}: {}; the run goes on", error.message);
                progress.event(Event::Warning(text));
            }
            Err(_) => (),
        }
    }
}

/// Restores the state of an earlier run, and opens `activations.safetensors` if all activations are
/// kept.
pub(super) fn restore_or_create(
    resume: &mut Option<Resume>,
    (model, plans, lanes): (&OpenModel, &[ShardPlan], &Lanes),
    tokens: &Tokens,
    observers: &mut [&mut dyn Observer],
    args: &ExtractArgs,
    progress: &dyn Progress,
) -> Result<(Option<Restored>, Option<FullWriter>)> {
    let found = match resume {
        Some(resume) => resume.restore(model, (plans, lanes), tokens, observers, progress),
        None => None,
    };
    let folder = match (args.keep, &args.out) {
        (Keep::Stats, _) => return Ok((found, None)),
        (Keep::Full, Some(folder)) => folder,
        (Keep::Full, None) => {
            return Err(Error::bad_argument("keep: \"full\" needs a folder to write to")
                .hint("add out: \"results/NAME\" to the options"));
        }
    };
    let kept = KeptSites::new(&model.spec, tokens, args)?;
    let ids: Vec<Vec<u32>> = kept.sequences.iter().map(|sequence| tokens.ids[*sequence].clone()).collect();
    let contents = Contents { tensors: &kept.tensors(&model.spec, tokens, args), ids: &ids };
    let writer = |file| {
        let sites = kept.sites.iter().map(|(at, _)| *at).collect();
        FullWriter { file, sites, sequences: kept.sequences.clone(), positions: kept.positions }
    };
    let Some(resume) = resume else { return Ok((None, Some(writer(FullActivations::create(folder, contents)?)))) };
    if let Some(found) = found {
        if let Some(full) =
            FullActivations::resume(&resume.fingerprint(), folder, contents, &kept.finished(found.layer))?
        {
            return Ok((Some(found), Some(writer(full))));
        }
        resume.discard("belongs to activations that are gone", observers, progress);
    }
    let full = FullActivations::create_for(&resume.fingerprint(), &resume.fingerprints_of_others(), folder, contents)?;
    Ok((None, Some(writer(full))))
}

/// The identity of the work: everything that can change a bit of the result. `chunk_layers` and the
/// number of threads cannot. `samples` is a hash of samples of the weights.
pub(super) fn identity(
    model: &ModelInfo,
    tokens: &TokensInfo,
    args: &ExtractArgs,
    ladder: &[f32],
    samples: &str,
) -> Map<String, Value> {
    let files: Vec<_> = model.files.iter().filter(|file| file.name != "tokenizer.json").collect();
    let Value::Object(mut identity) = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "model": { "files": files, "samples": samples },
        "dtype": model.dtype,
        "device": model.device,
        "tokens": [tokens.sha256, tokens.num_sequences, tokens.sequence_length],
        "thresholds": ladder.iter().map(|rung| rung.to_bits()).collect::<Vec<_>>(),
        "keep": args.keep,
        "logits": args.logits,
        "memory_budget": args.memory_budget,
    }) else {
        unreachable!("made as an object")
    };
    identity.extend((!args.lanes.is_default()).then(|| ("lanes".to_string(), json!(args.lanes))));
    identity.extend((!args.measure.is_default()).then(|| ("measure".to_string(), json!(args.measure))));
    identity
}

/// The owner of the file `name`, compared with work of this identity.
///
/// # Errors
/// The file is not a checkpoint.
pub(super) fn owner_of(name: &str, identity: &Map<String, Value>) -> Result<Owner> {
    let (header, reader) = match sealed::Reader::open(Path::new(name)) {
        Ok(None) => return Ok(Owner::Missing),
        Ok(Some(opened)) => opened,
        Err(error) => {
            return match error.kind {
                Kind::BadArgument => Err(error),
                Kind::VersionMismatch => Ok(Owner::Others("of another version of this program".to_string(), false)),
                _ => Ok(Owner::Damaged(error.message)),
            };
        }
    };
    let other = differences(&header["identity"], identity);
    Ok(match other.is_empty() {
        true => Owner::Ours(header, Box::new(reader)),
        false => Owner::Others(
            format!("of other work (its {} differ)", other.join(", ")),
            header.get(FINISHED).is_some_and(|finished| !finished.is_null()),
        ),
    })
}

/// The parts in which two works differ, those included that only one of them has.
pub(super) fn differences<'a>(stored: &'a Value, identity: &'a Map<String, Value>) -> Vec<&'a str> {
    let differs = |(key, value): &(&String, &Value)| stored[key.as_str()] != **value;
    let ours = identity.iter().filter(differs).map(|(key, _)| &**key);
    let more = stored.as_object().into_iter().flat_map(Map::keys).filter(|key| !identity.contains_key(*key));
    ours.chain(more.map(|key| &**key)).collect()
}

/// First row and number of rows of each piece.
fn pieces(hidden: &Tensor) -> Result<Vec<(usize, usize)>> {
    let (rows, width) = hidden.dims2()?;
    let step = (PIECE_BYTES / 4 / width).max(1);
    Ok((0..rows).step_by(step).map(|first| (first, step.min(rows - first))).collect())
}

fn write(mut writer: sealed::Writer, state: &State) -> Result<()> {
    let writing = |e: std::io::Error| Error::io("writing the checkpoint", &e).or_hint("is the disk full?");
    for values in state.hidden.iter().chain(&state.lent) {
        for (first, count) in pieces(values)? {
            let piece = values.rows(first, count)?.values()?;
            writer.write_all(bytemuck::cast_slice(&piece)).map_err(writing)?;
        }
    }
    // Observers flush their own files before the checkpoint gets its name.
    state.observers.save(state.layers, &mut writer)?;
    rmp_serde::encode::write(&mut writer, state.coverage)
        .map_err(|e| Error::new(Kind::Io, format!("writing the checkpoint: {e}")).hint("is the disk full?"))?;
    writer.finish()
}

fn read(
    header: &Value,
    mut reader: sealed::Reader,
    model: &OpenModel,
    (plans, lanes, tokens): (&[ShardPlan], &Lanes, &Tokens),
    observers: &mut [&mut dyn Observer],
) -> Result<Restored> {
    let reading = |e: std::io::Error| Error::corrupt(format!("reading it: {e}"));
    let number = |key: &str| header[key].as_u64().ok_or_else(|| Error::corrupt("its parts do not fit"));
    let (layer, bytes_read) = (number("layer")? as usize, number("bytes_read")?);
    if layer > model.spec.layers.len() {
        return Err(Error::corrupt("its parts do not fit"));
    }
    let width = model.spec.hidden_size;
    let mut values_of = |plan: &ShardPlan, streams: usize, width: usize| {
        let rows = streams * plan.sequences.len() * tokens.info.sequence_length;
        let all = Tensor::zeros((rows, width), &plan.device)?;
        for (first, count) in pieces(&all)? {
            let mut piece = vec![0f32; count * width];
            reader.read_exact(bytemuck::cast_slice_mut(&mut piece)).map_err(reading)?;
            all.set_rows(&Tensor::from_vec(piece, (count, width), &plan.device)?, first)?;
        }
        Ok::<Tensor, Error>(all)
    };
    // The model as it is, then each group of lanes that has begun.
    let streams: Vec<usize> =
        [1].into_iter().chain(lanes.begun(layer).into_iter().filter(|begun| *begun > 0)).collect();
    let mut all: Vec<Vec<Tensor>> = Vec::new();
    for count in &streams {
        all.push(plans.iter().map(|plan| values_of(plan, *count, width)).collect::<Result<_>>()?);
    }
    let mut carried: Vec<Carried> = Vec::new();
    for (count, hidden) in streams.iter().zip(all) {
        let mut of_group = Carried::new();
        for (plan, hidden) in plans.iter().zip(hidden) {
            let mut of_shard = LentKv::new();
            let lenders = model.spec.lenders(layer).into_iter();
            for (from, [keys, values]) in lenders.filter_map(|from| Some((from, model.spec.kv_widths(from)?))) {
                of_shard.insert(from, [values_of(plan, *count, keys)?, values_of(plan, *count, values)?]);
            }
            of_group.push((hidden, of_shard));
        }
        carried.push(of_group);
    }
    let (hidden, lent) = carried.remove(0).into_iter().unzip();
    for observer in observers.iter_mut() {
        observer.resume(layer, &mut reader)?;
    }
    let coverage = rmp_serde::from_read((&mut reader).take(MAX_COVERAGE))
        .map_err(|e| Error::corrupt(format!("reading it: {e}")))?;
    reader.finish()?;
    Ok(Restored { layer, hidden, lent, lanes: carried, coverage, bytes_read })
}
