//! One extraction: a pass with its observers and checkpoints, and the resulting record.

use std::sync::Arc;
use std::time::Instant;

use super::embed;
use super::lanes::{LanePlan, Lanes};
use super::measuring::Measuring;
use super::observe::{FullWriter, LadderFold, Observer, Observers, State};
use super::pass::{Between, Outcome, Pass, ReadAhead, Start, WeightStream, Work};
use super::resume::{self, Restored, Resume};
use super::workspace::BatchPlan;
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};
use crate::record::{Activations, ExtractArgs, Keep, Measurements, NonFinite, Tokens};
use crate::tensor::write_timeline;
use crate::weights::{OpenModel, headers};
use crate::{memory, stats, threads};

/// Runs all of `tokens` through the model and returns the statistics of the norm outputs.
pub fn extract(model: &OpenModel, tokens: &Tokens, args: &ExtractArgs, progress: &dyn Progress) -> Result<Activations> {
    extract_as(model, tokens, args, progress, Mode::default())
}

/// Runs one pass over all of `tokens` with the caller's observers, without a record or a
/// checkpoint. Of `args` it uses `logits` and `memory_budget`.
pub fn pass_over<'a>(
    model: &'a OpenModel,
    tokens: &'a Tokens,
    args: &ExtractArgs,
    observers: Observers<'a>,
    progress: &'a dyn Progress,
) -> Result<()> {
    struct NoCheckpoints;

    impl Between for NoCheckpoints {
        fn layer_done(&mut self, _state: &State) {}

        fn interrupted(&mut self, _state: &State) {}
    }

    threads::pool().map_err(|e| Error::no_thread("computing", &e))?;
    rayon::scope(|_| {
        let _retained = memory::RetainPages::begin();
        embed::check_tokens(model, tokens)?;
        let already_read = model.checkpoint.bytes_read();
        let (sequences, positions) = (tokens.info.num_sequences, tokens.info.sequence_length);
        let plan = BatchPlan::new(&model.spec, sequences, positions, args.memory_budget)?;
        let shard_plans = model.shard_plans(sequences);
        let lanes = Arc::new(Lanes::none(&model.spec, tokens));
        let work = Work { model, plan, logits: args.logits, observers, nobody: Observers::new(Vec::new()) };
        let (start, _) = start_of(None);
        let stream = WeightStream::start(model, &shard_plans, tokens, (args.logits, 0), ReadAhead::Bounded)?;
        Pass::new(work, shard_plans, tokens, start, stream, lanes, (already_read, progress))?
            .run(&mut NoCheckpoints)
            .map(drop)
    })
}

/// Options of an extraction that benchmarks change to measure the cost of a part.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    pub ahead: ReadAhead,
    /// True if statistics of the norm outputs are computed.
    pub fold: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self { ahead: ReadAhead::Bounded, fold: true }
    }
}

pub(super) fn extract_as(
    model: &OpenModel,
    tokens: &Tokens,
    args: &ExtractArgs,
    progress: &dyn Progress,
    mode: Mode,
) -> Result<Activations> {
    threads::pool().map_err(|e| Error::no_thread("computing", &e))?;
    // A thread of the pool distributes the work without being woken for every piece.
    rayon::scope(|_| {
        // This guard outlives all memory of the run.
        let _retained = memory::RetainPages::begin();
        let start = Instant::now();
        embed::check_tokens(model, tokens)?;
        let ladder = stats::ladder(&args.thresholds)?;
        let lanes = Lanes::new(&model.spec, tokens, LanePlan::new(&model.spec, tokens, args)?);
        let mut resume = Resume::new(model, tokens, args, &ladder, progress)?;
        match resume.as_mut().and_then(|resume| resume.finished(model, tokens, args, progress)) {
            Some(acts) => Ok(acts),
            None => {
                Extraction { model, tokens, args, progress, resume, ladder, lanes: Arc::new(lanes), start }.run(mode)
            }
        }
    })
}

struct Extraction<'a> {
    model: &'a OpenModel,
    tokens: &'a Tokens,
    args: &'a ExtractArgs,
    progress: &'a dyn Progress,
    resume: Option<Resume>,
    ladder: Vec<f32>,
    lanes: Arc<Lanes>,
    /// Start of the measured time.
    start: Instant,
}

impl Extraction<'_> {
    fn run(mut self, mode: Mode) -> Result<Activations> {
        let (model, tokens, args) = (self.model, self.tokens, self.args);
        let (sequences, positions) = (tokens.info.num_sequences, tokens.info.sequence_length);
        let already_read = model.checkpoint.bytes_read();
        if args.logits {
            headers::check(&model.checkpoint, &model.spec, true)?;
        }
        let plan = BatchPlan::new(&model.spec, sequences, positions, args.memory_budget)?;
        let norms = model.spec.norm_sites();
        let mut fold = LadderFold::new(&self.ladder, &norms, sequences, positions, model.spec.hidden_size);
        let mut measuring = Measuring::new(&model.spec, tokens, &args.measure, &self.ladder)?;
        let shard_plans = model.shard_plans(sequences);
        let (lanes, mut seen) = (self.lanes.clone(), self.lanes.observer());
        let mut kept = vec![&mut fold as &mut dyn Observer];
        kept.extend(measuring.observers());
        kept.extend(seen.as_mut().map(|seen| seen as &mut dyn Observer));
        let (restored, mut full) = resume::restore_or_create(
            &mut self.resume,
            (model, &shard_plans, &lanes),
            tokens,
            &mut kept,
            args,
            self.progress,
        )?;
        let (start, read_before) = start_of(restored);
        let first = start.layer;
        let mut more = measuring.observers();
        more.extend(seen.as_mut().map(|seen| seen as &mut dyn Observer));
        let observers = observers(mode.fold.then_some(&mut fold), full.as_mut(), more);
        let work = Work { model, plan, logits: args.logits, observers, nobody: Observers::new(Vec::new()) };
        let stream = WeightStream::start(model, &shard_plans, tokens, (args.logits, first), mode.ahead)?;
        let mut pass = Pass::new(work, shard_plans, tokens, start, stream, lanes, (already_read, self.progress))?;
        if mode.ahead == ReadAhead::Everything {
            pass.preload()?;
            self.start = Instant::now();
        }
        self.announce(first);
        let layers = model.spec.layers.len();
        let (resume, progress) = (self.resume.as_mut(), self.progress);
        let mut checkpoints = Checkpoints { resume, layers, logits: args.logits, read_before, progress };
        let outcome = pass.run(&mut checkpoints).map_err(|error| self.with_resume_hint(error))?;
        write_timeline(&model.devices)?;
        self.record((fold, full, measuring), outcome, first, (already_read, read_before))
    }

    fn announce(&self, first: usize) {
        let total = self.model.spec.layers.len() as u64;
        self.progress.event(Event::Begin { what: self.model.info.id.clone(), total });
        if let (Some(resume), 1..) = (&self.resume, first) {
            self.progress.event(Event::Resumed { path: resume.name.clone(), layer: first as u64 });
        }
    }

    /// Adds a hint to an interruption about how the next run can continue.
    fn with_resume_hint(&self, error: Error) -> Error {
        if error.kind != Kind::Interrupted {
            return error;
        }
        match self.resume.as_ref().map(Resume::saved) {
            Some(saved @ 1..) => error.hint(format!("run it again: it will go on after layer {saved}")),
            Some(0) => error,
            None => error.hint(
                "nothing of this pass is kept; with `checkpoint: \"checkpoints/NAME\"` among its options the next run goes on where it was",
            ),
        }
    }

    /// Makes the record from the statistics and measurements.
    fn record(
        mut self,
        (fold, full, measuring): (LadderFold, Option<FullWriter>, Measuring),
        outcome: Outcome,
        first: usize,
        (already_read, read_before): (u64, u64),
    ) -> Result<Activations> {
        let (model, tokens, args) = (self.model, self.tokens, self.args);
        let Outcome { coverage, needed, times, peak_vram, mut head } = outcome;
        let (all, without_first, non_finite) = fold.finish();
        let (sites, measures) = measuring.finish(model)?;
        self.warn_of(&non_finite);
        if let Some(FullWriter { file: mut full, .. }) = full {
            if let Some(head) = &head {
                for (s, logits) in head.last_logits.iter().enumerate() {
                    full.write("final_logits_last", s * logits.len(), logits)?;
                }
                full.write("mean_nll", 0, &head.mean_nll)?;
            }
            full.finish()?;
        }
        let wall = self.start.elapsed().as_secs_f64();
        let bytes_read = model.checkpoint.bytes_read() - already_read;
        // The share of the work that this run has done.
        let layers = model.spec.layers.len();
        let computed = (layers - first) as f64 / layers as f64;
        let count = computed * (tokens.info.num_sequences * tokens.info.sequence_length) as f64;
        let acts = Activations {
            model: model.info.clone(),
            tokens: tokens.info.clone(),
            norms: model.spec.norm_sites(),
            num_layers: layers,
            hidden_size: model.spec.hidden_size,
            num_sequences: tokens.info.num_sequences,
            sequence_length: tokens.info.sequence_length,
            ladder: self.ladder,
            all,
            without_first,
            non_finite,
            expert_coverage: coverage,
            lanes: head.as_mut().map(|head| self.lanes.outcomes(std::mem::take(&mut head.lanes))).unwrap_or_default(),
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
                peak_vram_bytes: peak_vram,
                resumed_at_layer: (first > 0).then_some(first),
                bytes_read_before: read_before,
                ..Measurements::default()
            },
            sites,
            measures,
        };
        if let Some(resume) = &mut self.resume {
            resume.finish(&acts, self.progress);
        }
        Ok(acts)
    }

    fn warn_of(&self, non_finite: &[NonFinite]) {
        for entry in non_finite {
            let norm = entry.norm.name();
            self.progress.event(Event::Warning(format!(
                "{norm}, sequence {}: {} NaN and {} infinite values, left out of the statistics",
                entry.sequence, entry.nan, entry.infinite
            )));
        }
    }
}

/// The start of a pass, and the number of bytes that earlier runs have read.
fn start_of(restored: Option<Restored>) -> (Start, u64) {
    match restored {
        Some(Restored { layer, hidden, lent, lanes, coverage, bytes_read }) => {
            (Start { layer, hidden: Some(hidden), lent, lanes, coverage }, bytes_read)
        }
        None => (Start { layer: 0, hidden: None, lent: Vec::new(), lanes: Vec::new(), coverage: Vec::new() }, 0),
    }
}

fn observers<'a>(
    fold: Option<&'a mut LadderFold>,
    full: Option<&'a mut FullWriter>,
    measuring: Vec<&'a mut dyn Observer>,
) -> Observers<'a> {
    let fold = fold.map(|fold| fold as &mut dyn Observer);
    let full = full.map(|full| full as &mut dyn Observer);
    Observers::new(fold.into_iter().chain(full).chain(measuring).collect())
}

/// Writes checkpoints between layers, if requested.
struct Checkpoints<'a> {
    resume: Option<&'a mut Resume>,
    layers: usize,
    logits: bool,
    /// Bytes that earlier runs have read.
    read_before: u64,
    progress: &'a dyn Progress,
}

impl Between for Checkpoints<'_> {
    fn layer_done(&mut self, state: &State) {
        // After the last layer there may be no work left to lose.
        let something_follows = state.layers < self.layers || self.logits;
        if something_follows && self.resume.as_ref().is_some_and(|resume| resume.is_due(state.layers)) {
            self.save(state);
        }
    }

    fn interrupted(&mut self, state: &State) {
        self.save(state);
    }
}

impl Checkpoints<'_> {
    fn save(&mut self, state: &State) {
        if let Some(resume) = &mut self.resume {
            resume.save(state, self.read_before, self.progress);
        }
    }
}
