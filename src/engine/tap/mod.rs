//! Folds every norm output where it is made: extremes, ladder counts and position unions, in one pass.
//!
//! The fold is over `record::Fold`'s definitions. Values that are not finite are counted and otherwise left out.

mod gpu;

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{CpuStorage, Storage, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::{values, vectorised};
use crate::record::{DEFAULT_LADDER, Fold, Ladders, NonFinite, NormFold, NormId};
use crate::tensor::{Device, Tensor};

/// Features per parallel piece; a piece of a row stays in the first-level cache between its passes.
const BLOCK: usize = 512;
/// Features of a group: a block has one for each bit of a word.
const GROUP: usize = BLOCK / u64::BITS as usize;
/// Most rungs a ladder can have: levels are kept in a byte, 0 meaning below the lowest rung.
pub const MAX_RUNGS: usize = 254;

/// Bytes of records that may wait on a GPU.
pub const PENDING_BYTES: usize = 64 << 20;

/// Numbers of four bytes in what a GPU records of a norm over some sequences: extremes, the row of position 0, counts of what
/// is not finite, ladder counts.
fn sizes(sequences: usize, hidden: usize, rungs: usize) -> [usize; 4] {
    [2 * hidden, hidden, 2, 2 * hidden * rungs].map(|size| size * sequences)
}

/// Its bytes.
pub fn record_bytes(sequences: usize, hidden: usize, rungs: usize) -> usize {
    4 * sizes(sequences, hidden, rungs).iter().sum::<usize>()
}

/// Ascending union of the default rungs and those asked for.
pub fn ladder(thresholds: &[f32]) -> Result<Vec<f32>> {
    if let Some(bad) = thresholds.iter().find(|t| !t.is_finite() || **t <= 0.0) {
        return Err(Error::bad_argument(format!("thresholds: {bad} is not a positive number"))
            .hint("thresholds are magnitudes: both signs count; LLM.int8() uses 6.0"));
    }
    let mut ladder: Vec<f32> = DEFAULT_LADDER.iter().chain(thresholds).copied().collect();
    ladder.sort_by(f32::total_cmp);
    ladder.dedup();
    Ok(ladder)
}

pub struct Tap {
    ladder: Vec<f32>,
    norms: Vec<NormId>,
    sequences: usize,
    positions: usize,
    hidden: usize,
    /// Highest rung any norm reached, plus one: [sequences][blocks of features][positions][features of the block].
    levels: Vec<u8>,
    /// [norms][sequences]
    all: Vec<Vec<NormFold>>,
    without_first: Vec<Vec<NormFold>>,
    non_finite: Vec<NonFinite>,
    gpus: Vec<gpu::OnGpu>,
}

/// What has been folded of the first norms, to be continued by another tap; its levels go with it.
#[derive(Serialize, Deserialize)]
pub struct Folds<'a> {
    all: Cow<'a, [Vec<NormFold>]>,
    without_first: Cow<'a, [Vec<NormFold>]>,
    non_finite: Cow<'a, [NonFinite]>,
}

impl Tap {
    /// `ladder` is ascending and positive; every norm will be seen once per sequence.
    pub fn new(ladder: &[f32], norms: &[NormId], sequences: usize, positions: usize, hidden: usize) -> Result<Self> {
        if ladder.len() > MAX_RUNGS {
            let problem = format!("{} thresholds are more than the {MAX_RUNGS} a record can hold", ladder.len());
            return Err(Error::bad_argument(problem));
        }
        let empty = || vec![vec![NormFold::default(); sequences]; norms.len()];
        Ok(Self {
            ladder: ladder.to_vec(),
            norms: norms.to_vec(),
            sequences,
            positions,
            hidden,
            levels: vec![0; sequences * positions * hidden],
            all: empty(),
            without_first: empty(),
            non_finite: Vec::new(),
            gpus: Vec::new(),
        })
    }

    /// Sequences that will be seen on `device`: before any of them is.
    pub fn place(&mut self, device: &Device, sequences: Range<usize>) -> Result<()> {
        debug_assert!(sequences.end <= self.sequences);
        match device {
            Device::Cpu => Ok(()),
            Device::Cuda(context) => self.place_on_gpu(context, sequences),
        }
    }

    /// Takes the output of norm `n` for sequences `first_sequence..`: `x` [sequences * positions, hidden].
    pub fn see(&mut self, n: usize, first_sequence: usize, x: &Tensor) -> candle_core::Result<()> {
        if let Tensor::Cuda(x) = x {
            return self.see_on_gpu(n, first_sequence, x);
        }
        let (storage, layout) = x.cpu()?.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage @ CpuStorage::F32(_)) => self.fold(n, first_sequence, values::<f32>(storage, layout)?),
            _ => bail!("the tap reads f32 in CPU memory"),
        }
        Ok(())
    }

    fn fold(&mut self, n: usize, first_sequence: usize, x: &[f32]) {
        let (hidden, positions) = (self.hidden, self.positions);
        let per_sequence = positions * hidden;
        let ladder = &self.ladder;
        let levels = &mut self.levels[first_sequence * per_sequence..][..x.len()];
        let pieces: Vec<(&[f32], usize, &mut [u8])> = x
            .chunks_exact(per_sequence)
            .zip(levels.chunks_exact_mut(per_sequence))
            .flat_map(|(x, levels)| {
                levels.chunks_mut(positions * BLOCK).enumerate().map(move |(block, levels)| (x, block * BLOCK, levels))
            })
            .collect();
        let folded: Vec<Piece> = pieces
            .into_par_iter()
            .map(|(x, first, levels)| Piece::fold(x, hidden, first, levels, positions, ladder))
            .collect();
        let blocks = hidden.div_ceil(BLOCK);
        for (s, pieces) in (first_sequence..).zip(folded.chunks_exact(blocks)) {
            let (nan, infinite) = pieces.iter().fold((0, 0), |sum, piece| (sum.0 + piece.nan, sum.1 + piece.infinite));
            let all = joined(pieces.iter().map(|piece| &piece.all));
            let without_first = joined(pieces.iter().map(|piece| &piece.without_first));
            self.keep(n, s, all, without_first, (nan, infinite));
        }
    }

    /// What norm `n` is over sequence `s`, and how many values were NaN and infinite. Seen once more, it replaces what it was.
    fn keep(&mut self, n: usize, s: usize, all: NormFold, without_first: NormFold, (nan, infinite): (u64, u64)) {
        if nan + infinite > 0 {
            self.non_finite.retain(|entry| (entry.norm, entry.sequence) != (self.norms[n], s));
            self.non_finite.push(NonFinite { norm: self.norms[n], sequence: s, nan, infinite });
        }
        self.all[n][s] = all;
        self.without_first[n][s] = without_first;
    }

    /// Of the first `norms` norms, all that have been seen.
    pub fn folds(&self, norms: usize) -> Folds<'_> {
        Folds {
            all: self.all[..norms].into(),
            without_first: self.without_first[..norms].into(),
            non_finite: self.non_finite.as_slice().into(),
        }
    }

    /// Bytes that folds of all norms take at most, stored as numbers of five bytes each: of a cell two extremes, and for both
    /// signs a feature, an end and a count per rung; all that twice.
    pub fn most_stored(&self) -> u64 {
        let rows = (self.norms.len() * self.sequences) as u64;
        let numbers = 2 + 2 * (2 + self.ladder.len() as u64);
        2 * rows * (self.hidden as u64 * numbers * 5 + 256)
    }

    pub fn positions(&self) -> usize {
        self.positions
    }

    /// One byte per token and feature.
    pub fn levels(&self) -> &[u8] {
        &self.levels
    }

    pub fn levels_mut(&mut self) -> &mut [u8] {
        &mut self.levels
    }

    /// Of what has been seen, only folds stay, which are replaced when their norms are seen again.
    pub fn begin_again(&mut self) {
        self.levels.fill(0);
        self.non_finite.clear();
    }

    /// Goes on where another tap was after its first `norms` norms; false, and nothing is changed, if it saw something else.
    pub fn resume(&mut self, norms: usize, folds: Folds<'static>) -> bool {
        let fits = |folds: &[Vec<NormFold>]| {
            let whole = |fold: &NormFold| fold.max.len() == self.hidden && fold.min.len() == self.hidden;
            folds.len() == norms && folds.iter().all(|row| row.len() == self.sequences && row.iter().all(whole))
        };
        if norms > self.norms.len() || !fits(&folds.all) || !fits(&folds.without_first) {
            return false;
        }
        for (mine, theirs) in [(&mut self.all, folds.all), (&mut self.without_first, folds.without_first)] {
            mine.iter_mut().zip(theirs.into_owned()).for_each(|(mine, theirs)| *mine = theirs);
        }
        self.non_finite = folds.non_finite.into_owned();
        true
    }

    /// The finished folds over all positions and without position 0, and where values were not finite.
    pub fn finish(self) -> (Fold, Fold, Vec<NonFinite>) {
        let unions: Vec<(Ladders, Ladders)> =
            self.levels.par_chunks_exact(self.positions * self.hidden).map(|levels| self.union(levels)).collect();
        debug_assert_eq!(unions.len(), self.sequences);
        let (any_all, any_without): (Vec<_>, Vec<_>) = unions.into_iter().unzip();
        let all = Fold { norms: self.all, any_norm: any_all };
        let without_first = Fold { norms: self.without_first, any_norm: any_without };
        let mut non_finite = self.non_finite;
        non_finite.sort_by_key(|entry| (entry.norm, entry.sequence));
        (all, without_first, non_finite)
    }

    /// Positions of one sequence per feature and rung, from the levels of all norms.
    fn union(&self, levels: &[u8]) -> (Ladders, Ladders) {
        let (mut all, mut without_first) = (Ladders::default(), Ladders::default());
        for (block, levels) in levels.chunks(self.positions * BLOCK).enumerate() {
            let width = levels.len() / self.positions;
            let mut counts = Histogram::new(width, self.ladder.len());
            let add = |row: &[u8], counts: &mut Histogram| {
                for (feature, level) in row.iter().enumerate() {
                    if *level > 0 {
                        counts.hit(feature, *level as usize - 1);
                    }
                }
            };
            for row in levels.chunks_exact(width).skip(1) {
                add(row, &mut counts);
            }
            without_first.append(&counts.ladders(block * BLOCK));
            add(&levels[..width], &mut counts);
            all.append(&counts.ladders(block * BLOCK));
        }
        (all, without_first)
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a NormFold>) -> NormFold {
    let mut whole = NormFold::default();
    for part in parts {
        whole.max.extend(&part.max);
        whole.min.extend(&part.min);
        whole.positive.append(&part.positive);
        whole.negative.append(&part.negative);
    }
    whole
}

/// Hits per feature and highest rung reached.
struct Histogram {
    rungs: usize,
    counts: Vec<u32>,
    touched: Vec<bool>,
}

impl Histogram {
    fn new(features: usize, rungs: usize) -> Self {
        Self { rungs, counts: vec![0; features * rungs], touched: vec![false; features] }
    }

    fn hit(&mut self, feature: usize, rung: usize) {
        self.counts[feature * self.rungs + rung] += 1;
        self.touched[feature] = true;
    }

    /// Counts at or beyond each rung, for features with any; features number from `first`.
    fn ladders(&self, first: usize) -> Ladders {
        let mut ladders = Ladders::default();
        let mut counts = vec![0; self.rungs];
        for (feature, _) in self.touched.iter().enumerate().filter(|(_, touched)| **touched) {
            counts.copy_from_slice(&self.counts[feature * self.rungs..][..self.rungs]);
            for rung in (1..self.rungs).rev() {
                counts[rung - 1] += counts[rung];
            }
            let reached = counts.iter().position(|count| *count == 0).unwrap_or(self.rungs);
            ladders.push((first + feature) as u32, &counts[..reached]);
        }
        ladders
    }
}

/// The fold of one block of features of one sequence.
struct Piece {
    all: NormFold,
    without_first: NormFold,
    nan: u64,
    infinite: u64,
}

impl Piece {
    fn fold(x: &[f32], hidden: usize, first: usize, levels: &mut [u8], positions: usize, ladder: &[f32]) -> Self {
        let width = levels.len() / positions;
        let mut running = Running {
            max: vec![f32::NEG_INFINITY; width],
            min: vec![f32::INFINITY; width],
            positive: Histogram::new(width, ladder.len()),
            negative: Histogram::new(width, ladder.len()),
            ladder,
            nan: 0,
            infinite: 0,
        };
        let mut rows = x.chunks_exact(hidden).map(|row| &row[first..first + width]).zip(levels.chunks_exact_mut(width));
        let position_0 = rows.next();
        for (row, levels) in rows {
            running.row(row, levels);
        }
        let without_first = running.norm_fold(first);
        if let Some((row, levels)) = position_0 {
            running.row(row, levels);
        }
        Self { all: running.norm_fold(first), without_first, nan: running.nan, infinite: running.infinite }
    }
}

struct Running<'a> {
    max: Vec<f32>,
    min: Vec<f32>,
    positive: Histogram,
    negative: Histogram,
    ladder: &'a [f32],
    nan: u64,
    infinite: u64,
}

impl Running<'_> {
    fn row(&mut self, row: &[f32], levels: &mut [u8]) {
        let largest = f32::from_bits(vectorised(|| largest_bits(row)));
        if !largest.is_finite() {
            for (feature, x) in row.iter().enumerate() {
                self.value(feature, *x, levels);
            }
            return;
        }
        vectorised(|| extremes(row, &mut self.max, &mut self.min));
        let mut beyond = if largest < self.ladder[0] { 0 } else { vectorised(|| beyond(row, self.ladder[0])) };
        while beyond != 0 {
            let first = beyond.trailing_zeros() as usize * GROUP;
            beyond &= beyond - 1;
            for (feature, x) in row.iter().enumerate().skip(first).take(GROUP) {
                self.count(feature, *x, levels);
            }
        }
    }

    fn value(&mut self, feature: usize, x: f32, levels: &mut [u8]) {
        if !x.is_finite() {
            *(if x.is_nan() { &mut self.nan } else { &mut self.infinite }) += 1;
            return;
        }
        self.max[feature] = self.max[feature].max(x);
        self.min[feature] = self.min[feature].min(x);
        self.count(feature, x, levels);
    }

    /// Counts a finite value where it is on the ladder.
    fn count(&mut self, feature: usize, x: f32, levels: &mut [u8]) {
        if x.abs() >= self.ladder[0] {
            let rung = self.ladder.partition_point(|rung| *rung <= x.abs()) - 1;
            let side = if x > 0.0 { &mut self.positive } else { &mut self.negative };
            side.hit(feature, rung);
            levels[feature] = levels[feature].max(rung as u8 + 1);
        }
    }

    fn norm_fold(&self, first: usize) -> NormFold {
        NormFold {
            max: self.max.clone(),
            min: self.min.clone(),
            positive: self.positive.ladders(first),
            negative: self.negative.ladders(first),
        }
    }
}

/// The bits of the largest |x|. They order like |x| itself, with infinity and NaN on top.
#[inline(always)]
fn largest_bits(row: &[f32]) -> u32 {
    row.iter().fold(0u32, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff))
}

/// The groups of features in which an |x| is at or beyond `threshold`, a bit each.
#[inline(always)]
fn beyond(row: &[f32], threshold: f32) -> u64 {
    let any = |group: &[f32]| group.iter().fold(false, |any, x| any | (x.abs() >= threshold));
    row.chunks(GROUP).enumerate().fold(0, |groups, (i, group)| groups | u64::from(any(group)) << i)
}

#[inline(always)]
fn extremes(row: &[f32], max: &mut [f32], min: &mut [f32]) {
    for ((max, min), &x) in max.iter_mut().zip(min).zip(row) {
        *max = if x > *max { x } else { *max };
        *min = if x < *min { x } else { *min };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Site;

    #[test]
    fn a_norm_that_is_seen_again_counts_once() {
        let norm = NormId { layer: 0, site: Site::InputLayernorm };
        let mut tap = Tap::new(&[3.0], &[norm], 1, 2, 3).unwrap();
        let x = Tensor::from_vec(vec![f32::NAN, 1.0, 4.0, 5.0, f32::INFINITY, 0.0], (2, 3), &Device::Cpu).unwrap();
        tap.see(0, 0, &x).unwrap();
        tap.see(0, 0, &x).unwrap();
        let (all, _, non_finite) = tap.finish();
        assert_eq!(non_finite, [NonFinite { norm, sequence: 0, nan: 1, infinite: 1 }]);
        assert_eq!(all.norms[0][0].max, [5.0, 1.0, 4.0]);
    }
}
