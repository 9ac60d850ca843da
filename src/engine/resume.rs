//! Checkpoints of a run: what one layer leaves to the next goes to a file, and a run that was cut off goes on from there.
//!
//! The file holds the residual stream (4 bytes per token and feature), what observers keep: levels (1 byte) and, of the norms so
//! far, folds (about 20 bytes per norm, sequence and feature) and expert coverage: 0.8 GB for 16 sequences of 2,048 tokens and
//! 4,096 features in 46 layers. There is one file, replaced each time, at last by the finished record (`finished`). It says what it
//! is of: weights, tokens and every option that can change a bit of the outcome. A file of other work stays: this work then has
//! its own beside it, under a name that says whose it is. A damaged one is reported and not used. Equal bytes at the end can be had
//! where the arithmetic is equal: the same program, and processors with the same vector instructions.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::observe::{FullWriter, Observer, State};
use super::pass::Lent;
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};
use crate::record::{ExpertCoverage, ExtractArgs, Keep, ModelInfo, SiteId, Tokens, TokensInfo};
use crate::results::{FullActivations, sealed};
use crate::spec::Model;
use crate::tensor::Tensor;
use crate::weights::{OpenModel, Share};
use crate::words::hex;

/// Time between two checkpoints: what a cut may cost.
const INTERVAL: Duration = Duration::from_secs(30);
/// Time between two checkpoints, in times that writing one takes: they cost at most 3 % of a run.
const INTERVAL_PER_COST: u32 = 33;
/// The residual stream passes through memory in pieces of so many bytes.
const PIECE_BYTES: usize = 4 << 20;

/// Bytes of a mark.
const MARK_BYTES: usize = 8;
/// The key of a header that says of a finished pass what is not in its record.
pub(super) const FINISHED: &str = "finished";

/// Bytes of what is stored beside what observers keep: tokens per expert.
const MAX_COVERAGE: u64 = 64 << 20;

/// The checkpoint of one run.
pub struct Resume {
    /// The file as the user wrote it.
    asked: String,
    /// The file of this work: that one, or one beside it.
    pub name: String,
    /// What the run computes: two runs with the same one end with the same bytes.
    identity: Map<String, Value>,
    every: Option<usize>,
    /// What an earlier run has left in the file.
    pub(super) left: Option<(Value, sealed::Reader)>,
    /// Layers whose work is in the file.
    saved: usize,
    last: Instant,
    cost: Duration,
    /// The last attempt to write has failed, and the user has been told.
    failing: bool,
}

/// Whose a file is.
pub(super) enum Whose {
    Nobodys,
    Ours(Value, Box<sealed::Reader>),
    /// Why it is not of this work, and whether it holds a finished pass.
    Others(String, bool),
    Damaged(String),
}

/// What one layer has left to the next, read back; observers have been told.
pub struct Found {
    pub layer: usize,
    /// Of each share.
    pub hidden: Vec<Tensor>,
    /// What later layers use of those that are done, of each share.
    pub lent: Vec<Lent>,
    pub coverage: Vec<ExpertCoverage>,
    pub bytes_read: u64,
}

impl Resume {
    /// None where no checkpoint is asked for. Files that cannot be used are reported.
    pub fn new(
        model: &OpenModel,
        tokens: &Tokens,
        args: &ExtractArgs,
        ladder: &[f32],
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(asked) = &args.checkpoint else { return Ok(None) };
        let samples = model.checkpoint.sample()?;
        let mut resume = Self {
            asked: asked.path.clone(),
            name: asked.path.clone(),
            identity: identity(&model.info, &tokens.info, args, ladder, &samples),
            every: asked.layers,
            left: None,
            saved: 0,
            last: Instant::now(),
            cost: Duration::ZERO,
            failing: false,
        };
        resume.look(progress)?;
        Ok(Some(resume))
    }

    /// What files of this work have in common.
    pub(super) fn mark(&self) -> String {
        mark(&self.identity)
    }

    /// The header of a file of this work, after so many layers; the mark comes first, so that it is found without reading on.
    pub(super) fn header(&self, layer: usize, bytes_read: u64) -> Value {
        json!({ "mark": self.mark(), "identity": self.identity, "layer": layer, "bytes_read": bytes_read })
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(&self.name)
    }

    /// Layers whose work can be taken up by another run.
    pub fn saved(&self) -> usize {
        self.saved
    }

    /// Finds what earlier runs of this work have left, and the place where this one writes.
    fn look(&mut self, progress: &dyn Progress) -> Result<()> {
        let mut unused = Vec::new();
        for name in [self.asked.clone(), beside(&self.asked, &self.mark())] {
            match whose(&name, &self.identity)? {
                Whose::Ours(header, reader) => {
                    (self.name, self.left) = (name, Some((header, *reader)));
                    return Ok(());
                }
                Whose::Others(why, finished) => {
                    self.name = beside(&self.asked, &self.mark());
                    // A finished pass waits to be saved; nothing of this one could have been in its place.
                    if !finished {
                        unused.push(format!("{name} is {why}, which stays; that of this run is {}", self.name));
                    }
                }
                Whose::Damaged(why) => unused.push(format!("{name} is not used ({why})")),
                Whose::Nobodys => (),
            }
        }
        for why in unused {
            progress.event(Event::Warning(format!("checkpoint {why}: starting at the first layer")));
        }
        Ok(())
    }

    /// Marks of the work that has the other files beside this one.
    fn marks_of_others(&self) -> Vec<String> {
        let header = |name: &String| sealed::header_of(Path::new(name));
        let names = checkpoints(&self.asked);
        names.iter().filter_map(header).filter_map(|header| header["mark"].as_str().map(String::from)).collect()
    }

    /// Before writing: a run of other work may have taken the place meanwhile.
    pub(super) fn own_place(&mut self) -> Result<()> {
        if let Whose::Others(..) = whose(&self.name, &self.identity)? {
            self.name = beside(&self.asked, &self.mark());
        }
        Ok(())
    }

    /// Where an earlier run of the same work was cut off, if it was. A file that cannot be used is reported.
    fn find(
        &mut self,
        model: &OpenModel,
        shares: &[Share],
        tokens: &Tokens,
        observers: &mut [&mut dyn Observer],
        progress: &dyn Progress,
    ) -> Option<Found> {
        let (header, reader) = self.left.take()?;
        match read(&header, reader, model, (shares, tokens), observers) {
            Ok(found) => {
                self.saved = found.layer;
                Some(found)
            }
            Err(error) => {
                self.forget(&format!("is not used ({})", error.message), observers, progress);
                None
            }
        }
    }

    /// Gives up what `find` gave.
    fn forget(&mut self, why: &str, observers: &mut [&mut dyn Observer], progress: &dyn Progress) {
        self.saved = 0;
        observers.iter_mut().for_each(|observer| observer.begin_again());
        progress.event(Event::Warning(format!("checkpoint {} {why}: starting at the first layer", self.name)));
    }

    /// Whether it is time for a checkpoint after `layer` layers.
    pub fn is_due(&self, layer: usize) -> bool {
        match self.every {
            Some(layers) => layer.is_multiple_of(layers),
            None => self.last.elapsed() >= INTERVAL.max(INTERVAL_PER_COST * self.cost),
        }
    }

    /// Writes the state unless it is in the file already. A failure is reported, and the run goes on.
    pub fn save(&mut self, state: &State, read_before: u64, progress: &dyn Progress) {
        if state.layers <= self.saved {
            return;
        }
        let start = Instant::now();
        let header = self.header(state.layers, read_before + state.bytes_read);
        let settled = state.observers.settle().and_then(|()| self.own_place());
        let written = settled.and_then(|()| write(sealed::Writer::create(self.path(), &header)?, state));
        self.cost = start.elapsed();
        self.last = Instant::now();
        self.written(state.layers, written, progress);
    }

    /// Tells what came of writing the state after `layer` layers.
    pub(super) fn written(&mut self, layer: usize, outcome: Result<()>, progress: &dyn Progress) {
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

/// Finds what a run can take over, and what writes all activations where they are kept.
pub fn take_over(
    resume: &mut Option<Resume>,
    (model, shares): (&OpenModel, &[Share]),
    tokens: &Tokens,
    observers: &mut [&mut dyn Observer],
    args: &ExtractArgs,
    progress: &dyn Progress,
) -> Result<(Option<Found>, Option<FullWriter>)> {
    let found = match resume {
        Some(resume) => resume.find(model, shares, tokens, observers, progress),
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
    let per_sequence = tokens.info.sequence_length * model.spec.hidden_size;
    let writer = |file| FullWriter { file, per_sequence };
    let tensors = &full_tensors(model, tokens, args);
    let Some(resume) = resume else { return Ok((None, Some(writer(FullActivations::create(folder, tensors)?)))) };
    if let Some(found) = found {
        if let Some(full) =
            FullActivations::resume(&resume.mark(), folder, tensors, &finished(&model.spec, found.layer))?
        {
            return Ok((Some(found), Some(writer(full))));
        }
        resume.forget("belongs to activations that are gone", observers, progress);
    }
    let full = FullActivations::create_for(&resume.mark(), &resume.marks_of_others(), folder, tensors)?;
    Ok((None, Some(writer(full))))
}

/// Everything that can change a bit of the outcome. `chunk_layers` and threads cannot. `samples`: of the weights.
pub(super) fn identity(
    model: &ModelInfo,
    tokens: &TokensInfo,
    args: &ExtractArgs,
    ladder: &[f32],
    samples: &str,
) -> Map<String, Value> {
    let files = model.files.iter().filter(|file| file.name != "tokenizer.json");
    let identity = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "model": { "files": files.collect::<Vec<_>>(), "samples": samples },
        "dtype": model.dtype,
        "device": model.device,
        "tokens": [tokens.sha256, tokens.num_sequences, tokens.sequence_length],
        "thresholds": ladder.iter().map(|rung| rung.to_bits()).collect::<Vec<_>>(),
        "keep": args.keep,
        "logits": args.logits,
        "memory_budget": args.memory_budget,
    });
    let Value::Object(identity) = identity else { unreachable!("made as an object") };
    identity
}

/// Whose the file `name` is, seen from work of this identity.
///
/// # Errors
/// Where it is no checkpoint at all.
pub(super) fn whose(name: &str, identity: &Map<String, Value>) -> Result<Whose> {
    let (header, reader) = match sealed::Reader::open(Path::new(name)) {
        Ok(None) => return Ok(Whose::Nobodys),
        Ok(Some(opened)) => opened,
        Err(error) => {
            return match error.kind {
                Kind::BadArgument => Err(error),
                Kind::VersionMismatch => Ok(Whose::Others("of another version of this program".to_string(), false)),
                _ => Ok(Whose::Damaged(error.message)),
            };
        }
    };
    let differs = |(key, value): &(&String, &Value)| header["identity"][key.as_str()] != **value;
    let other: Vec<&str> = identity.iter().filter(differs).map(|(key, _)| &**key).collect();
    Ok(match other.is_empty() {
        true => Whose::Ours(header, Box::new(reader)),
        false => Whose::Others(
            format!("of other work (its {} differ)", other.join(", ")),
            header.get(FINISHED).is_some_and(|finished| !finished.is_null()),
        ),
    })
}

pub(super) fn mark(identity: &Map<String, Value>) -> String {
    let identity = serde_json::to_string(identity).expect("JSON");
    hex(&Sha256::digest(identity)[..MARK_BYTES])
}

/// Where work with this mark has its file when other work has the one that was asked for.
pub(super) fn beside(asked: &str, mark: &str) -> String {
    format!("{asked}.{mark}")
}

/// Whether `name` is a file that work with the checkpoint `asked` may have.
pub fn is_checkpoint_of(asked: &str, name: &str) -> bool {
    let is_mark =
        |mark: &str| mark.len() == 2 * MARK_BYTES && mark.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    name == asked || name.strip_prefix(asked).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_mark)
}

/// Files that work with the checkpoint `asked` may have: that one, and those beside it.
pub fn checkpoints(asked: &str) -> Vec<String> {
    let (folder, file) = asked.rsplit_once('/').unwrap_or((".", asked));
    let beside = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (name != file && is_checkpoint_of(file, &name)).then(|| format!("{asked}{}", &name[file.len()..]))
    });
    let mut names: Vec<String> = std::iter::once(asked.to_string()).chain(beside).collect();
    names.sort();
    names
}

/// The tensors of `activations.safetensors`, with their shapes.
fn full_tensors(model: &OpenModel, tokens: &Tokens, args: &ExtractArgs) -> Vec<(String, Vec<usize>)> {
    let (s, t) = (tokens.info.num_sequences, tokens.info.sequence_length);
    let mut tensors: Vec<_> =
        model.spec.sublayer_sites().iter().map(|norm| (norm.name(), vec![s, t, model.spec.hidden_size])).collect();
    if args.logits {
        tensors.push(("final_logits_last".to_string(), vec![s, model.spec.vocab_size]));
        tensors.push(("mean_nll".to_string(), vec![if t > 1 { s } else { 0 }]));
    }
    tensors
}

/// Tensors that are complete after `layer` layers.
fn finished(model: &Model, layers: usize) -> Vec<String> {
    let sites = model.sublayer_sites().into_iter();
    sites.filter(|site| site.layer < layers).map(SiteId::name).collect()
}

/// First row and number of rows of each piece.
fn pieces(hidden: &Tensor) -> Result<Vec<(usize, usize)>> {
    let (rows, width) = hidden.dims2()?;
    let step = (PIECE_BYTES / 4 / width).max(1);
    Ok((0..rows).step_by(step).map(|first| (first, step.min(rows - first))).collect())
}

fn write(mut writer: sealed::Writer, state: &State) -> Result<()> {
    let writing = |e: std::io::Error| Error::io("writing the checkpoint", &e).hint("is the disk full?");
    for values in state.hidden.iter().chain(&state.lent) {
        for (first, count) in pieces(values)? {
            let piece = values.rows(first, count)?.values()?;
            writer.write_all(bytemuck::cast_slice(&piece)).map_err(writing)?;
        }
    }
    // What a file of an observer must hold is on the disk before the checkpoint gets its name.
    state.observers.save(state.layers, &mut writer)?;
    rmp_serde::encode::write(&mut writer, state.coverage)
        .map_err(|e| Error::new(Kind::Io, format!("writing the checkpoint: {e}")).hint("is the disk full?"))?;
    writer.finish()
}

fn read(
    header: &Value,
    mut reader: sealed::Reader,
    model: &OpenModel,
    (shares, tokens): (&[Share], &Tokens),
    observers: &mut [&mut dyn Observer],
) -> Result<Found> {
    let reading = |e: std::io::Error| Error::corrupt(format!("reading it: {e}"));
    let number = |key: &str| header[key].as_u64().ok_or_else(|| Error::corrupt("its parts do not fit"));
    let (layer, bytes_read) = (number("layer")? as usize, number("bytes_read")?);
    if layer > model.spec.layers.len() {
        return Err(Error::corrupt("its parts do not fit"));
    }
    let width = model.spec.hidden_size;
    let mut values_of = |share: &Share, width: usize| {
        let rows = share.sequences.len() * tokens.info.sequence_length;
        let all = Tensor::zeros((rows, width), &share.device)?;
        for (first, count) in pieces(&all)? {
            let mut piece = vec![0f32; count * width];
            reader.read_exact(bytemuck::cast_slice_mut(&mut piece)).map_err(reading)?;
            all.set_rows(&Tensor::from_vec(piece, (count, width), &share.device)?, first)?;
        }
        Ok::<Tensor, Error>(all)
    };
    let hidden = shares.iter().map(|share| values_of(share, width)).collect::<Result<Vec<_>>>()?;
    let mut lent: Vec<Lent> = Vec::new();
    for share in shares {
        let mut of_share = Lent::new();
        for from in model.spec.lenders(layer) {
            if let Some([keys, values]) = model.spec.kv_widths(from) {
                of_share.insert(from, [values_of(share, keys)?, values_of(share, values)?]);
            }
        }
        lent.push(of_share);
    }
    for observer in observers.iter_mut() {
        observer.resume(layer, &mut reader)?;
    }
    let coverage = rmp_serde::from_read((&mut reader).take(MAX_COVERAGE))
        .map_err(|e| Error::corrupt(format!("reading it: {e}")))?;
    reader.finish()?;
    Ok(Found { layer, hidden, lent, coverage, bytes_read })
}
