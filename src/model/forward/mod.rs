//! The layer-streamed forward pass: the only loop over layers in the program.
//!
//! All sequences go through a layer before the next is touched, so each weight is read once. In memory are the residual
//! stream of all sequences (f32), the weights of the layer at work, what the reader has ahead, and a bounded workspace.
//! Between two layers a run can leave a checkpoint, and another can take over (`resume`).

mod layer;

use std::time::Instant;

use super::inventory::{self, Part};
use super::load::{Loader, tensor_error};
use super::open::OpenModel;
use super::plan::Plan;
use super::probe::Probe;
use super::reader::{Portion, Reader};
use super::resume::{self, Resume, State};
use super::rope::Rotary;
use super::spec::Ffn;
use super::tap::{Tap, ladder};
use super::tensor::Tensor;
use super::workspace::{Cut, read_ahead, weights_at_once};
use super::{embed, head};
use crate::error::{Error, Kind, Result};
use crate::memory;
use crate::progress::{Event, Progress};
use crate::record::{Activations, ExpertCoverage, ExtractArgs, Keep, Measurements, NormId, Site, Tokens};
use crate::results::FullActivations;

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
    let mut start = Instant::now();
    let mut run = Run::new(model, tokens, args, progress, probe)?;
    if probe.preload {
        run.preload()?;
        start = Instant::now();
    }
    run.layers()?;
    let head = run.head()?;
    let mut needed = run.needed;
    if args.logits {
        needed += model.head_bytes()?;
    }
    run.tap.settle().map_err(tensor_error)?;
    let (all, without_first, non_finite) = run.tap.finish();
    for entry in &non_finite {
        let norm = entry.norm.name();
        progress.event(Event::Warning(format!(
            "{norm}, sequence {}: {} NaN and {} infinite values, left out of the statistics",
            entry.sequence, entry.nan, entry.infinite
        )));
    }
    if let Some(mut full) = run.full {
        if let Some(head) = &head {
            for (s, logits) in head.last_logits.iter().enumerate() {
                full.write("final_logits_last", s * logits.len(), logits)?;
            }
            full.write("mean_nll", 0, &head.mean_nll)?;
        }
        full.finish()?;
    }
    if let Some(resume) = run.resume {
        resume.remove();
    }
    let wall = start.elapsed().as_secs_f64();
    let times = run.reader.times();
    let bytes_read = model.checkpoint.bytes_read() - run.already_read;
    // Of all layers' tokens those that this run has pushed through.
    let layers = model.spec.layers.len() as f64;
    let share = (layers - run.first as f64) / layers;
    let count = share * (tokens.info.num_sequences * tokens.info.sequence_length) as f64;
    Ok(Activations {
        model: model.info.clone(),
        tokens: tokens.info.clone(),
        norms: norms(model),
        num_layers: model.spec.layers.len(),
        hidden_size: model.spec.hidden_size,
        num_sequences: tokens.info.num_sequences,
        sequence_length: tokens.info.sequence_length,
        ladder: run.ladder,
        all,
        without_first,
        non_finite,
        expert_coverage: run.coverage,
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
            peak_vram_bytes: model.device.peak(),
            resumed_at_layer: (run.first > 0).then_some(run.first),
            bytes_read_before: run.read_before,
            ..Measurements::default()
        },
    })
}

/// All norms, in the order in which the tap counts them.
pub(super) fn norms(model: &OpenModel) -> Vec<NormId> {
    (0..model.spec.layers.len()).flat_map(|layer| Site::BOTH.map(|site| NormId { layer, site })).collect()
}

struct Run<'a> {
    model: &'a OpenModel,
    tokens: &'a Tokens,
    args: &'a ExtractArgs,
    progress: &'a dyn Progress,
    cut: Cut,
    /// The device had no room for pieces of this size.
    cut_further: bool,
    ladder: Vec<f32>,
    tap: Tap,
    full: Option<FullActivations>,
    reader: Reader,
    plan: Plan,
    /// The residual stream [sequences * positions, hidden], f32.
    hidden: Tensor,
    coverage: Vec<ExpertCoverage>,
    resume: Option<Resume>,
    /// The layer this run begins with.
    first: usize,
    /// Bytes that the runs before this one have read.
    read_before: u64,
    /// Bytes of tensor data this run needs.
    needed: u64,
    /// Bytes this checkpoint had given to earlier analyses.
    already_read: u64,
    probe: Probe,
}

impl<'a> Run<'a> {
    fn new(
        model: &'a OpenModel,
        tokens: &'a Tokens,
        args: &'a ExtractArgs,
        progress: &'a dyn Progress,
        probe: Probe,
    ) -> Result<Self> {
        let (sequences, positions) = (tokens.info.num_sequences, tokens.info.sequence_length);
        let already_read = model.checkpoint.bytes_read();
        embed::check_tokens(model, tokens)?;
        let cut = Cut::new(&model.spec, sequences, positions, args.memory_budget)?;
        let ladder = ladder(&args.thresholds)?;
        let mut tap = Tap::new(&ladder, &norms(model), sequences, positions, model.spec.hidden_size)?;
        let mut resume = Resume::new(model, tokens, args, &ladder)?;
        let (found, full) = resume::take_over(&mut resume, model, tokens, &mut tap, args, progress)?;
        let mut needed = 0;
        let loader = Loader { checkpoint: &model.checkpoint, device: &model.device };
        let size = |part: &Part| loader.resident_bytes(part);
        let budget = if probe.preload { usize::MAX } else { read_ahead(&model.spec, model.info.chunk_layers, &size)? };
        if !probe.preload {
            model.device.reserve(weights_at_once(&model.spec, budget, &size)?)?;
        }
        let reader = Reader::start(model.checkpoint.clone(), model.dtype, model.device.clone(), budget);
        let (first, read_before, hidden, coverage) = match found {
            Some(found) => (found.layer, found.bytes_read, found.hidden, found.coverage),
            None => (0, 0, embed::embed(model, tokens, &mut needed)?, Vec::new()),
        };
        Ok(Self {
            model,
            tokens,
            args,
            progress,
            cut,
            cut_further: false,
            ladder,
            tap,
            full,
            plan: Plan::new(model, tokens, args.logits, first)?,
            reader,
            hidden,
            coverage,
            resume,
            first,
            read_before,
            needed,
            already_read,
            probe,
        })
    }

    fn positions(&self) -> usize {
        self.tokens.info.sequence_length
    }

    /// The FFN of the last layer feeds nothing but the logits.
    fn needs_ffn(&self, layer: usize) -> bool {
        self.args.logits || layer + 1 < self.model.spec.layers.len()
    }

    fn ask_core(&mut self, layer: usize) -> Result<()> {
        if let Some(spec) = self.model.spec.layers.get(layer) {
            let parts = inventory::core(spec, self.needs_ffn(layer));
            self.ask(Portion::Core(layer), parts)?;
        }
        Ok(())
    }

    fn ask(&mut self, portion: Portion, parts: Vec<Part>) -> Result<()> {
        for part in &parts {
            self.needed += self.model.stored_bytes(part)?;
        }
        self.plan.announce(portion, &parts)?;
        self.reader.ask(portion, parts)
    }

    /// Everything a layer can need, for as long as the run lasts.
    fn preload(&mut self) -> Result<()> {
        for (i, layer) in self.model.spec.layers.iter().enumerate() {
            self.ask_core(i)?;
            if let (Ffn::Moe(moe), true) = (&layer.ffn, self.needs_ffn(i)) {
                for expert in 0..moe.num_experts {
                    self.ask(Portion::Expert { layer: i, expert }, inventory::expert(&moe.experts, expert))?;
                }
            }
        }
        self.reader.settle();
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let layers = &self.model.spec.layers;
        let ahead = self.model.info.chunk_layers.max(1) - 1;
        self.progress.event(Event::Begin { what: self.model.info.id.clone(), total: layers.len() as u64 });
        if let (Some(resume), 1..) = (&self.resume, self.first) {
            self.progress.event(Event::Resumed { path: resume.name.clone(), layer: self.first as u64 });
        }
        for layer in self.first..=(self.first + ahead).min(layers.len() - 1) {
            self.ask_core(layer)?;
        }
        let mut rotary = Rotary::default();
        for (i, layer) in layers.iter().enumerate().skip(self.first) {
            if self.progress.interrupted() {
                return Err(self.interrupted(i));
            }
            let weights = self.reader.take(Portion::Core(i))?;
            if i > self.first && ahead > 0 {
                self.ask_core(i + ahead)?;
            }
            rotary.prepare(&layer.mixer, self.positions(), &self.model.device).map_err(tensor_error)?;
            match &layer.ffn {
                Ffn::Moe(moe) if self.needs_ffn(i) => self.mixture(i, layer, moe, weights, rotary.get())?,
                _ => {
                    for batch in self.batches() {
                        self.mix(i, layer, &weights, batch, rotary.get())?;
                    }
                    self.dense(i, layer, &weights)?;
                    // Before others are asked for.
                    drop(weights);
                }
            }
            self.model.device.pace()?;
            if self.model.device.was_full() && !std::mem::replace(&mut self.cut_further, true) {
                let what = "the GPU's memory is full: work is cut into smaller pieces";
                self.progress.event(Event::Warning(what.to_string()));
            }
            let tokens = (self.tokens.info.num_sequences * self.positions()) as u64;
            let bytes = self.model.checkpoint.bytes_read() - self.already_read;
            self.progress.event(Event::Step { done: i as u64 + 1, bytes, tokens });
            // After the last layer there may be nothing left to lose.
            if (i + 1 < layers.len() || self.args.logits) && self.resume.as_ref().is_some_and(|r| r.is_due(i + 1)) {
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
        if let Err(error) = self.tap.settle().map_err(tensor_error) {
            return self.progress.event(Event::Warning(format!("no checkpoint after layer {layer}: {error}")));
        }
        let (hidden, tap, coverage) = (&self.hidden, &self.tap, &self.coverage);
        let bytes_read = self.read_before + self.model.checkpoint.bytes_read() - self.already_read;
        resume.save(&State { layer, hidden, tap, coverage, bytes_read }, self.full.as_mut(), self.progress);
    }

    /// The end of a run that was told to stop after `layer` layers.
    fn interrupted(&mut self, layer: usize) -> Error {
        self.save(layer);
        match self.resume.as_ref().map(Resume::saved) {
            Some(saved @ 1..) => Error::interrupted().hint(format!("run it again: it will go on after layer {saved}")),
            _ => Error::interrupted(),
        }
    }

    /// First sequence and count of each batch; none crosses the end of a round.
    fn batches(&self) -> Vec<(usize, usize)> {
        let (all, round) = (self.tokens.info.num_sequences, self.round());
        let size = self.cut.sequences.min(round);
        let of_round = |start: usize| {
            let end = (start + round).min(all);
            (start..end).step_by(size).map(move |first| (first, size.min(end - first)))
        };
        (0..all).step_by(round).flat_map(of_round).collect()
    }

    /// Sequences after which the experts they chose are asked for: those are read while the others pass the mixer. The same
    /// however the work is cut, and so the order of the experts, too.
    fn round(&self) -> usize {
        self.tokens.info.num_sequences.div_ceil(ROUNDS)
    }

    fn head(&mut self) -> Result<Option<head::HeadOutput>> {
        if !self.args.logits {
            return Ok(None);
        }
        self.reader.ask(Portion::FinalNorm, inventory::before_head(&self.model.spec))?;
        let weights = self.reader.take(Portion::FinalNorm)?;
        let loader = Loader { checkpoint: &self.model.checkpoint, device: &self.model.device };
        match head::head(&self.model.spec, &loader, &weights, &self.hidden, &self.tokens.ids, self.progress) {
            Err(error) if error.kind == Kind::Interrupted => Err(self.interrupted(self.model.spec.layers.len())),
            outcome => outcome.map(Some),
        }
    }
}
