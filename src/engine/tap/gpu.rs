//! The tap's fold on GPUs: a kernel per norm output leaves a small record there, which is fetched some norms later.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;
use rayon::prelude::*;

use super::{Histogram, PENDING_BYTES, Running, Tap, sizes};
use crate::cuda::{Arg, Array, Context, Element, Stream, THREADS};
use crate::record::NormFold;
use crate::tensor::wrapped;

/// Features of a block of threads in the kernel.
const FEATURES: usize = 32;
/// What a tap keeps on a GPU that computes some of the sequences.
pub(super) struct OnGpu {
    ladder: Array,
    first_sequence: usize,
    /// As `Tap::levels`, of its sequences.
    levels: Array,
    pending: Vec<Pending>,
}

/// The record of one norm over some sequences: extremes, the row of position 0, counts of what is not finite, ladder counts.
struct Pending {
    norm: usize,
    first_sequence: usize,
    sequences: usize,
    record: Array,
}

impl Tap {
    /// As `see`, for values on a GPU.
    pub(super) fn see_on_gpu(&mut self, norm: usize, first_sequence: usize, x: &Array) -> Result<()> {
        let (hidden, positions, rungs) = (self.hidden, self.positions, self.ladder.len());
        let sequences = x.len() / (positions * hidden);
        let gpu = self.gpus.iter_mut().find(|gpu| Arc::ptr_eq(gpu.levels.context(), x.context()));
        let Some(gpu) = gpu else { candle_core::bail!("the tap was not told of this GPU") };
        let parts = sizes(sequences, hidden, rungs);
        let record = Array::zeros(x.context(), &[parts.iter().sum()], Element::F32).map_err(wrapped)?;
        let at = |part: usize| Arg::Address(record.address() + 4 * parts[..part].iter().sum::<usize>() as u64);
        let levels =
            gpu.levels.rows((first_sequence - gpu.first_sequence) * positions * hidden, sequences * positions * hidden);
        let args = [
            x.arg(),
            gpu.ladder.arg(),
            at(0),
            at(3),
            at(2),
            levels.arg(),
            Arg::size(rungs),
            Arg::size(positions),
            Arg::size(hidden),
        ];
        let blocks = (hidden.div_ceil(FEATURES) as u32, sequences as u32);
        let row = [at(1), x.arg(), Arg::count(sequences * hidden)];
        let row = [&row[..], &[Arg::size(positions * hidden), Arg::size(0), Arg::size(hidden)]].concat();
        x.context().launch(Stream::Compute, "tap", blocks, THREADS, &args).map_err(wrapped)?;
        x.each("columns", sequences * hidden, &row).map_err(wrapped)?;
        gpu.pending.push(Pending { norm, first_sequence, sequences, record });
        if gpu.pending.iter().map(|pending| 4 * pending.record.len()).sum::<usize>() > PENDING_BYTES {
            let pending = std::mem::take(&mut gpu.pending);
            self.fetch(pending)?;
        }
        Ok(())
    }

    /// The sequences from `sequences.start` on will be seen on the GPU of `context`; those of each GPU are one piece.
    pub(super) fn place_on_gpu(&mut self, context: &Arc<Context>, sequences: Range<usize>) -> crate::error::Result<()> {
        let of_sequence = self.positions * self.hidden;
        let seen = &self.levels[sequences.start * of_sequence..sequences.end * of_sequence];
        let ladder = bytemuck::cast_slice(&self.ladder);
        let ladder = Array::uploaded(context, ladder, &[self.ladder.len()], Element::F32)?;
        // A run that goes on has seen something already.
        let levels = match seen.iter().any(|level| *level > 0) {
            true => Array::uploaded(context, seen, &[seen.len()], Element::U8)?,
            false => Array::zeros(context, &[seen.len()], Element::U8)?,
        };
        self.gpus.push(OnGpu { ladder, first_sequence: sequences.start, levels, pending: Vec::new() });
        Ok(())
    }

    /// Brings everything that is still on a GPU into this tap.
    pub fn settle(&mut self) -> Result<()> {
        let of_sequence = self.positions * self.hidden;
        let mut waiting = Vec::new();
        for gpu in &mut self.gpus {
            waiting.append(&mut gpu.pending);
            let levels = &mut self.levels[gpu.first_sequence * of_sequence..];
            gpu.levels.download(levels).map_err(wrapped)?;
        }
        self.fetch(waiting)
    }

    fn fetch(&mut self, pending: Vec<Pending>) -> Result<()> {
        for Pending { norm, first_sequence, sequences, record } in pending {
            let mut words = vec![0u32; record.len()];
            record.download(bytemuck::cast_slice_mut(&mut words)).map_err(wrapped)?;
            drop(record);
            let folded: Vec<_> = (0..sequences).into_par_iter().map(|s| self.folded(&words, s, sequences)).collect();
            for (s, (all, without_first, odd)) in (first_sequence..).zip(folded) {
                self.keep(norm, s, all, without_first, odd);
            }
        }
        Ok(())
    }

    /// The folds of sequence `s` of a record, with and without position 0, and how many values are NaN and infinite.
    fn folded(&self, words: &[u32], s: usize, sequences: usize) -> (NormFold, NormFold, (u64, u64)) {
        let (hidden, rungs) = (self.hidden, self.ladder.len());
        let parts = sizes(sequences, hidden, rungs);
        let part = |i: usize| {
            let size = parts[i] / sequences;
            &words[parts[..i].iter().sum::<usize>() + s * size..][..size]
        };
        let floats = |words: &[u32]| words.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<f32>>();
        let (extremes, odd) = (floats(part(0)), part(2));
        let histogram = |side: usize| {
            let mut histogram = Histogram::new(hidden, rungs);
            for (feature, counts) in part(3).chunks_exact(2 * rungs).enumerate() {
                let counts = &counts[side * rungs..][..rungs];
                if counts.iter().any(|count| *count > 0) {
                    histogram.counts[feature * rungs..][..rungs].copy_from_slice(counts);
                    histogram.touched[feature] = true;
                }
            }
            histogram
        };
        let mut running = Running {
            max: extremes[..hidden].to_vec(),
            min: extremes[hidden..].to_vec(),
            positive: histogram(0),
            negative: histogram(1),
            ladder: &self.ladder,
            nan: odd[0] as u64,
            infinite: odd[1] as u64,
        };
        let without_first = running.norm_fold(0);
        // Its levels are on the GPU already.
        running.row(&floats(part(1)), &mut vec![0; hidden]);
        (running.norm_fold(0), without_first, (running.nan, running.infinite))
    }
}
