//! Statistics of norm outputs on GPUs: a kernel per norm output writes a small record, which is
//! fetched some norms later.

use std::sync::Arc;

use rayon::prelude::*;

use super::cells::{Histogram, Running};
use crate::cuda::{Array, Context, Element, table};
use crate::error::Result;
use crate::record::NormFold;

/// The most bytes of unfetched records on a GPU.
pub const PENDING_BYTES: usize = 64 << 20;

/// Number of 4-byte words in the parts of a record of one norm over some sequences: extremes, the
/// row of position 0, counts of non-finite values, ladder counts.
fn sizes(sequences: usize, hidden: usize, rungs: usize) -> [usize; 4] {
    [2 * hidden, hidden, 2, 2 * hidden * rungs].map(|size| size * sequences)
}

/// Size of such a record in bytes.
pub fn record_bytes(sequences: usize, hidden: usize, rungs: usize) -> usize {
    4 * sizes(sequences, hidden, rungs).iter().sum::<usize>()
}

#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub hidden: usize,
    pub positions: usize,
    pub rungs: usize,
}

/// The state of the statistics on one GPU.
pub(super) struct GpuFold {
    ladder: Vec<f32>,
    ladder_on_gpu: Array,
    pub first_sequence: usize,
    /// As `LadderFold::levels`, for the sequences of this GPU.
    levels: Array,
    pending: Vec<Pending>,
    shape: Shape,
}

/// The unfetched record of one norm over some sequences.
struct Pending {
    norm: usize,
    first_sequence: usize,
    sequences: usize,
    record: Array,
}

/// The statistics of one norm over one sequence.
pub(super) struct Folded {
    pub norm: usize,
    pub sequence: usize,
    pub all: NormFold,
    pub without_first: NormFold,
    /// Numbers of NaN and of infinite values.
    pub non_finite: (u64, u64),
}

impl GpuFold {
    /// The GPU computes consecutive sequences from `first_sequence` on, whose levels so far are
    /// `levels_so_far`.
    pub(super) fn new(
        context: &Arc<Context>,
        first_sequence: usize,
        levels_so_far: &[u8],
        ladder: &[f32],
        shape: Shape,
    ) -> Result<Self> {
        let ladder_on_gpu = Array::uploaded(context, bytemuck::cast_slice(ladder), &[ladder.len()], Element::F32)?;
        // A resumed run has levels already.
        let levels = match levels_so_far.iter().any(|level| *level > 0) {
            true => Array::uploaded(context, levels_so_far, &[levels_so_far.len()], Element::U8)?,
            false => Array::zeros(context, &[levels_so_far.len()], Element::U8)?,
        };
        Ok(Self { ladder: ladder.to_vec(), ladder_on_gpu, first_sequence, levels, pending: Vec::new(), shape })
    }

    /// True if `x` is in the memory of this GPU.
    pub(super) fn is_on(&self, x: &Array) -> bool {
        Arc::ptr_eq(self.levels.context(), x.context())
    }

    /// Adds `x` [sequences * positions, hidden] of a norm, without waiting for the GPU.
    pub(super) fn observe(&mut self, norm: usize, first_sequence: usize, x: &Array) -> Result<()> {
        let Shape { hidden, positions, rungs } = self.shape;
        let sequences = x.len() / (positions * hidden);
        let parts = sizes(sequences, hidden, rungs);
        let record = Array::zeros(x.context(), &[parts.iter().sum()], Element::F32)?;
        let part = |part: usize| record.rows(parts[..part].iter().sum(), parts[part]);
        let levels = self
            .levels
            .rows((first_sequence - self.first_sequence) * positions * hidden, sequences * positions * hidden)?;
        table::Tap {
            sequences,
            x,
            ladder: &self.ladder_on_gpu,
            extremes: &part(0)?,
            counts: &part(3)?,
            odd: &part(2)?,
            levels: &levels,
            rungs,
            positions,
            hidden,
        }
        .launch()?;
        // The rows of position 0.
        let (count, from) = (sequences * hidden, positions * hidden);
        table::Columns { out: &part(1)?, x, count, from, first: 0, width: hidden }.launch()?;
        self.pending.push(Pending { norm, first_sequence, sequences, record });
        Ok(())
    }

    /// True if the unfetched records exceed their limit.
    pub(super) fn must_fetch(&self) -> bool {
        self.pending.iter().map(|pending| 4 * pending.record.len()).sum::<usize>() > PENDING_BYTES
    }

    /// Downloads the levels of this GPU's sequences to the beginning of `to`.
    pub(super) fn levels(&self, to: &mut [u8]) -> Result<()> {
        self.levels.download(to)
    }

    /// Fetches all records.
    pub(super) fn fetch(&mut self) -> Result<Vec<Folded>> {
        let mut fetched = Vec::new();
        for Pending { norm, first_sequence, sequences, record } in std::mem::take(&mut self.pending) {
            let mut words = vec![0u32; record.len()];
            record.download(bytemuck::cast_slice_mut(&mut words))?;
            drop(record);
            let of = |s| {
                let (all, without_first, non_finite) = self.folded(&words, s, sequences);
                Folded { norm, sequence: first_sequence + s, all, without_first, non_finite }
            };
            fetched.par_extend((0..sequences).into_par_iter().map(of));
        }
        Ok(fetched)
    }

    /// The statistics of sequence `s` of a record, with and without position 0, and the numbers of
    /// NaN and infinite values.
    fn folded(&self, words: &[u32], s: usize, sequences: usize) -> (NormFold, NormFold, (u64, u64)) {
        let Shape { hidden, rungs, .. } = self.shape;
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
        // The kernel has already updated the levels of position 0.
        running.row(&floats(part(1)), &mut vec![0; hidden]);
        (running.norm_fold(0), without_first, (running.nan, running.infinite))
    }
}
