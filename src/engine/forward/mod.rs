//! The layer-streamed forward pass: the only loop over layers in the program.
//!
//! All sequences go through a layer before the next is touched, so each weight is read once. In memory are the residual
//! stream of all sequences (f32), the weights of the layer at work, what the reader has ahead, and a bounded workspace.
//! Between two layers a run can leave a checkpoint, and another can take over (`resume`).

mod layer;
mod shard;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::probe::Probe;
use super::resume::{self, Resume, State};
use super::tap::{Tap, ladder};
use super::workspace::{Cut, read_ahead, weights_at_once};
use super::{embed, head};
use crate::error::{Error, Kind, Result};
use crate::memory;
use crate::progress::{Event, Progress};
use crate::record::{Activations, ExpertCoverage, ExtractArgs, Keep, Measurements, NormId, Site, Tokens};
use crate::results::FullActivations;
use crate::spec::inventory::{self, Part};
use crate::spec::{Ffn, Moe};
use crate::tensor::tensor_error;
use crate::tensor::{Device, Tensor, write_timeline};
use crate::threads;
use crate::weights::headers;
use crate::weights::load::Loader;
use crate::weights::plan::Plan;
use crate::weights::reader::{Portion, Reader};
use crate::weights::{OpenModel, Share};
use layer::At;
use shard::{Shard, each};

/// Parts of the sequences after each of which the experts they chose are asked for.
pub const ROUNDS: usize = 4;

/// Runs all of `tokens` through the model and folds the norm outputs.
pub fn extract(model: &OpenModel, tokens: &Tokens, args: &ExtractArgs, progress: &dyn Progress) -> Result<Activations> {
    extract_with(model, tokens, args, progress, Probe::default())
}

pub fn extract_with(
    model: &OpenModel,
    tokens: &Tokens,
    args: &ExtractArgs,
    progress: &dyn Progress,
    probe: Probe,
) -> Result<Activations> {
    threads::pool().map_err(|e| Error::no_thread("computing", &e))?;
    // On a thread of the pool: it shares the work out without being woken for every piece.
    rayon::scope(|_| {
        // Outlives all that the run has.
        let _kept = memory::Kept::begin();
        let start = Instant::now();
        embed::check_tokens(model, tokens)?;
        let ladder = ladder(&args.thresholds)?;
        let mut resume = Resume::new(model, tokens, args, &ladder, progress)?;
        match resume.as_mut().and_then(|resume| resume.finished(model, tokens, args, progress)) {
            Some(acts) => Ok(acts),
            None => Run::new(model, tokens, args, (resume, ladder), progress, probe)?.complete(start),
        }
    })
}

/// All norms, in the order in which the tap counts them.
pub(super) fn norms(model: &OpenModel) -> Vec<NormId> {
    (0..model.spec.layers.len()).flat_map(|layer| Site::BOTH.map(|site| NormId { layer, site })).collect()
}

/// Nothing panics while it holds one of these locks.
const UNHARMED: &str = "no panic under this lock";

/// What all shards of a run look at.
struct Work<'a> {
    model: &'a OpenModel,
    args: &'a ExtractArgs,
    cut: Cut,
    probe: Probe,
    tap: Mutex<Tap>,
    full: Mutex<Option<FullActivations>>,
}

impl Work<'_> {
    fn tap(&self) -> MutexGuard<'_, Tap> {
        self.tap.lock().expect(UNHARMED)
    }

    fn full(&self) -> MutexGuard<'_, Option<FullActivations>> {
        self.full.lock().expect(UNHARMED)
    }

    /// The FFN of the last layer feeds nothing but the logits.
    fn needs_ffn(&self, layer: usize) -> bool {
        self.args.logits || layer + 1 < self.model.spec.layers.len()
    }

    /// Tokens per product of an expert.
    fn ffn_rows(&self, moe: &Moe) -> usize {
        self.cut.ffn_rows(self.model.spec.hidden_size, moe.intermediate)
    }
}

/// The weights on their way to the layers.
struct Stream {
    reader: Reader,
    plan: Plan,
    /// Bytes of tensor data this run needs.
    needed: u64,
}

impl Stream {
    fn ask(&mut self, model: &OpenModel, portion: Portion, parts: Vec<Part>) -> Result<()> {
        for part in &parts {
            self.needed += model.stored_bytes(part)?;
        }
        self.plan.announce(portion, &parts)?;
        self.reader.ask(portion, parts)
    }
}

struct Run<'a> {
    work: Work<'a>,
    tokens: &'a Tokens,
    progress: &'a dyn Progress,
    /// A device had no room for pieces of this size.
    cut_further: bool,
    ladder: Vec<f32>,
    shards: Vec<Shard>,
    stream: Stream,
    coverage: Vec<ExpertCoverage>,
    resume: Option<Resume>,
    /// The layer this run begins with.
    first: usize,
    /// Bytes that the runs before this one have read.
    read_before: u64,
    /// Bytes this checkpoint had given to earlier analyses.
    already_read: u64,
}

impl<'a> Run<'a> {
    fn new(
        model: &'a OpenModel,
        tokens: &'a Tokens,
        args: &'a ExtractArgs,
        (mut resume, ladder): (Option<Resume>, Vec<f32>),
        progress: &'a dyn Progress,
        probe: Probe,
    ) -> Result<Self> {
        let (sequences, positions) = (tokens.info.num_sequences, tokens.info.sequence_length);
        let already_read = model.checkpoint.bytes_read();
        if args.logits {
            headers::check(&model.checkpoint, &model.spec, true)?;
        }
        let cut = Cut::new(&model.spec, sequences, positions, args.memory_budget)?;
        let shares = model.shares(sequences);
        let devices: Arc<[Device]> = shares.iter().map(|share| share.device.clone()).collect();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &devices };
        // Whatever is not there is not needed.
        let size = |part: &Part| Ok(loader.resident_bytes(part).unwrap_or(0));
        let budget = if probe.preload { usize::MAX } else { read_ahead(&model.spec, model.info.chunk_layers, &size)? };
        let reserved = if probe.preload { 0 } else { weights_at_once(&model.spec, budget, &size)? };
        devices.iter().try_for_each(|device| device.reserve(reserved))?;
        let mut tap = Tap::new(&ladder, &norms(model), sequences, positions, model.spec.hidden_size)?;
        let (found, full) = resume::take_over(&mut resume, (model, &shares), tokens, &mut tap, args, progress)?;
        for share in &shares {
            tap.place(&share.device, share.sequences.clone())?;
        }
        let reader = Reader::start(model.checkpoint.clone(), model.dtype, devices, budget)?;
        let mut needed = 0;
        let (first, read_before, hidden, coverage) = match found {
            Some(found) => (found.layer, found.bytes_read, found.hidden, found.coverage),
            None => (0, 0, begin(model, &shares, tokens, &mut needed)?, Vec::new()),
        };
        let shards = shares.into_iter().enumerate().zip(hidden);
        Ok(Self {
            work: Work { model, args, cut, probe, tap: Mutex::new(tap), full: Mutex::new(full) },
            tokens,
            progress,
            cut_further: false,
            ladder,
            shards: shards.map(|(share, hidden)| Shard::new(share, positions, hidden)).collect(),
            stream: Stream { reader, plan: Plan::new(model, tokens, args.logits, first)?, needed },
            coverage,
            resume,
            first,
            read_before,
            already_read,
        })
    }

    /// All layers, the head where it is wanted, and what they left in the tap.
    fn complete(mut self, mut start: Instant) -> Result<Activations> {
        let Work { model, args, probe, .. } = self.work;
        let (tokens, progress) = (self.tokens, self.progress);
        if probe.preload {
            self.preload()?;
            start = Instant::now();
        }
        self.layers()?;
        let head = self.head()?;
        let mut needed = self.stream.needed;
        if args.logits {
            needed += model.head_bytes()?;
        }
        let times = self.stream.reader.times();
        write_timeline(&model.devices)?;
        let Work { tap, full, .. } = self.work;
        let mut tap = tap.into_inner().expect(UNHARMED);
        tap.settle().map_err(tensor_error)?;
        let (all, without_first, non_finite) = tap.finish();
        for entry in &non_finite {
            let norm = entry.norm.name();
            progress.event(Event::Warning(format!(
                "{norm}, sequence {}: {} NaN and {} infinite values, left out of the statistics",
                entry.sequence, entry.nan, entry.infinite
            )));
        }
        if let Some(mut full) = full.into_inner().expect(UNHARMED) {
            if let Some(head) = &head {
                for (s, logits) in head.last_logits.iter().enumerate() {
                    full.write("final_logits_last", s * logits.len(), logits)?;
                }
                full.write("mean_nll", 0, &head.mean_nll)?;
            }
            full.finish()?;
        }
        let wall = start.elapsed().as_secs_f64();
        let bytes_read = model.checkpoint.bytes_read() - self.already_read;
        // Of all layers' tokens those that this run has pushed through.
        let layers = model.spec.layers.len() as f64;
        let share = (layers - self.first as f64) / layers;
        let count = share * (tokens.info.num_sequences * tokens.info.sequence_length) as f64;
        let acts = Activations {
            model: model.info.clone(),
            tokens: tokens.info.clone(),
            norms: norms(model),
            num_layers: model.spec.layers.len(),
            hidden_size: model.spec.hidden_size,
            num_sequences: tokens.info.num_sequences,
            sequence_length: tokens.info.sequence_length,
            ladder: self.ladder,
            all,
            without_first,
            non_finite,
            expert_coverage: self.coverage,
            mean_nll: head.map(|head| head.mean_nll).filter(|nll| !nll.is_empty()),
            full_activations: args.out.clone().filter(|_| args.keep == Keep::Full),
            measurements: Measurements {
                wall_seconds: wall,
                waited_for_weights_seconds: times.waited_for_weights.as_secs_f64(),
                waited_for_compute_seconds: times.waited_for_room.as_secs_f64(),
                bytes_read,
                read_bytes_per_second: bytes_read as f64 / times.reading.as_secs_f64().max(1e-9),
                bytes_needed: needed,
                tokens_per_second: count / wall,
                peak_memory_bytes: memory::peak(),
                peak_vram_bytes: self.shards.iter().map(|shard| shard.device.peak()).max().unwrap_or(0),
                resumed_at_layer: (self.first > 0).then_some(self.first),
                bytes_read_before: self.read_before,
                ..Measurements::default()
            },
        };
        if let Some(resume) = &mut self.resume {
            resume.finish(&acts, progress);
        }
        Ok(acts)
    }

    fn ask_core(&mut self, layer: usize) -> Result<()> {
        if let Some(spec) = self.work.model.spec.layers.get(layer) {
            let parts = inventory::core(spec, self.work.needs_ffn(layer));
            self.stream.ask(self.work.model, Portion::Core(layer), parts)?;
        }
        Ok(())
    }

    /// Everything a layer can need, for as long as the run lasts.
    fn preload(&mut self) -> Result<()> {
        let model = self.work.model;
        for (i, layer) in model.spec.layers.iter().enumerate() {
            self.ask_core(i)?;
            if let (Ffn::Moe(moe), true) = (&layer.ffn, self.work.needs_ffn(i)) {
                for expert in 0..moe.num_experts {
                    let parts = inventory::expert(&moe.experts, expert);
                    self.stream.ask(model, Portion::Expert { layer: i, expert }, parts)?;
                }
            }
        }
        self.stream.reader.settle();
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let model = self.work.model;
        let layers = &model.spec.layers;
        let ahead = model.info.chunk_layers.max(1) - 1;
        self.progress.event(Event::Begin { what: model.info.id.clone(), total: layers.len() as u64 });
        if let (Some(resume), 1..) = (&self.resume, self.first) {
            self.progress.event(Event::Resumed { path: resume.name.clone(), layer: self.first as u64 });
        }
        for layer in self.first..=(self.first + ahead).min(layers.len() - 1) {
            self.ask_core(layer)?;
        }
        let begin = Instant::now();
        for (i, layer) in layers.iter().enumerate().skip(self.first) {
            if self.progress.interrupted() {
                return Err(self.interrupted(i));
            }
            let weights = self.stream.reader.take(Portion::Core(i))?;
            if i > self.first && ahead > 0 {
                self.ask_core(i + ahead)?;
            }
            let positions = self.tokens.info.sequence_length;
            for Shard { rotary, device, .. } in &mut self.shards {
                device.begins(i)?;
                rotary.prepare(&layer.mixer, positions, device).map_err(tensor_error)?;
            }
            match &layer.ffn {
                Ffn::Moe(moe) if self.work.needs_ffn(i) => self.mixture(i, layer, moe, weights)?,
                _ => {
                    let at = At { work: &self.work, i, layer, weights: &weights };
                    each(&mut self.shards, |shard| at.dense(shard))?;
                    // Before others are asked for.
                    drop(weights);
                }
            }
            self.shards.iter().try_for_each(|shard| shard.device.pace())?;
            // All are asked, since the answer is given once.
            let full = self.shards.iter().filter(|shard| shard.device.was_full()).count() > 0;
            if full && !std::mem::replace(&mut self.cut_further, true) {
                let what = "the GPU's memory is full: work is cut into smaller pieces";
                self.progress.event(Event::Warning(what.to_string()));
            }
            let tokens = (self.tokens.info.num_sequences * positions) as u64;
            let bytes = model.checkpoint.bytes_read() - self.already_read;
            let seconds = begin.elapsed().as_secs_f64();
            self.progress.event(Event::Step { done: i as u64 + 1, bytes, tokens, seconds });
            // After the last layer there may be nothing left to lose.
            if (i + 1 < layers.len() || self.work.args.logits) && self.resume.as_ref().is_some_and(|r| r.is_due(i + 1))
            {
                self.save(i + 1);
            }
            if ahead == 0 {
                self.ask_core(i + 1)?;
            }
        }
        self.progress.event(Event::End);
        Ok(())
    }

    /// Leaves a checkpoint: `layer` layers are done, and no other has begun.
    fn save(&mut self, layer: usize) {
        let Some(resume) = &mut self.resume else { return };
        let mut tap = self.work.tap();
        if let Err(error) = tap.settle().map_err(tensor_error) {
            return self.progress.event(Event::Warning(format!("no checkpoint after layer {layer}: {error}")));
        }
        let hidden = self.shards.iter().map(|shard| &shard.hidden).collect();
        let bytes_read = self.read_before + self.work.model.checkpoint.bytes_read() - self.already_read;
        let state = State { layer, hidden, tap: &tap, coverage: &self.coverage, bytes_read };
        resume.save(&state, self.work.full().as_mut(), self.progress);
    }

    /// The end of a run that was told to stop after `layer` layers.
    fn interrupted(&mut self, layer: usize) -> Error {
        self.save(layer);
        match self.resume.as_ref().map(Resume::saved) {
            Some(saved @ 1..) => Error::interrupted().hint(format!("run it again: it will go on after layer {saved}")),
            _ if self.resume.is_some() => Error::interrupted(),
            _ => Error::interrupted().hint(
                "nothing of this pass is kept; with `checkpoint: \"checkpoints/NAME\"` among its options the next run goes on where it was",
            ),
        }
    }

    fn head(&mut self) -> Result<Option<head::HeadOutput>> {
        let Work { model, args, .. } = &self.work;
        if !args.logits {
            return Ok(None);
        }
        self.stream.reader.ask(Portion::FinalNorm, inventory::before_head(&model.spec))?;
        let weights = self.stream.reader.take(Portion::FinalNorm)?;
        let devices: Vec<Device> = self.shards.iter().map(|shard| shard.device.clone()).collect();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &devices };
        let hidden: Vec<&Tensor> = self.shards.iter().map(|shard| &shard.hidden).collect();
        match head::head(&model.spec, &loader, &weights, &hidden, &self.tokens.ids, self.progress) {
            Err(error) if error.kind == Kind::Interrupted => Err(self.interrupted(model.spec.layers.len())),
            outcome => outcome.map(Some),
        }
    }
}

/// The residual stream of each share before the first layer.
fn begin(model: &OpenModel, shares: &[Share], tokens: &Tokens, needed: &mut u64) -> Result<Vec<Tensor>> {
    let mut embedded = embed::embed(model, tokens, needed)?;
    let width = model.spec.hidden_size;
    let of = |share: &Share| {
        let rows = share.sequences.len() * tokens.info.sequence_length;
        let rest = embedded.split_off(rows * width);
        let mine = std::mem::replace(&mut embedded, rest);
        Tensor::from_vec(mine, (rows, width), &share.device).map_err(tensor_error)
    };
    shares.iter().map(of).collect()
}
