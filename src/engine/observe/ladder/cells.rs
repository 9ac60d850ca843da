//! Statistics of rows of values: extremes and counts per rung for each feature.

use crate::record::{Ladders, NormFold};
use crate::vector::vectorised;

/// Number of features in one parallel task. A row's part of this size stays in the L1 cache.
pub(super) const BLOCK: usize = 512;
/// Number of features in a group. The groups of a block are the bits of a word.
const GROUP: usize = BLOCK / u64::BITS as usize;

pub(super) fn concat_blocks<'a>(parts: impl Iterator<Item = &'a NormFold>) -> NormFold {
    let mut whole = NormFold::default();
    for part in parts {
        whole.max.extend(&part.max);
        whole.min.extend(&part.min);
        whole.positive.append(&part.positive);
        whole.negative.append(&part.negative);
    }
    whole
}

/// Number of hits per feature and highest rung reached.
pub(super) struct Histogram {
    pub rungs: usize,
    pub counts: Vec<u32>,
    pub touched: Vec<bool>,
}

impl Histogram {
    pub(super) fn new(features: usize, rungs: usize) -> Self {
        Self { rungs, counts: vec![0; features * rungs], touched: vec![false; features] }
    }

    pub(super) fn hit(&mut self, feature: usize, rung: usize) {
        self.counts[feature * self.rungs + rung] += 1;
        self.touched[feature] = true;
    }

    /// Counts at or beyond each rung, for features with hits. Feature numbers begin at `first`.
    pub(super) fn ladders(&self, first: usize) -> Ladders {
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

/// Statistics of one block of features of one sequence.
pub(super) struct Piece {
    pub all: NormFold,
    pub without_first: NormFold,
    pub nan: u64,
    pub infinite: u64,
}

impl Piece {
    pub(super) fn fold(
        x: &[f32],
        hidden: usize,
        first: usize,
        levels: &mut [u8],
        positions: usize,
        ladder: &[f32],
    ) -> Self {
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

pub(super) struct Running<'a> {
    pub max: Vec<f32>,
    pub min: Vec<f32>,
    pub positive: Histogram,
    pub negative: Histogram,
    pub ladder: &'a [f32],
    pub nan: u64,
    pub infinite: u64,
}

impl Running<'_> {
    pub(super) fn row(&mut self, row: &[f32], levels: &mut [u8]) {
        let largest = f32::from_bits(vectorised!(|| largest_bits(row)));
        if !largest.is_finite() {
            for (feature, x) in row.iter().enumerate() {
                self.value(feature, *x, levels);
            }
            return;
        }
        vectorised!(|| extremes(row, &mut self.max, &mut self.min));
        let mut beyond = if largest < self.ladder[0] { 0 } else { vectorised!(|| beyond(row, self.ladder[0])) };
        while beyond != 0 {
            let first = beyond.trailing_zeros() as usize * GROUP;
            beyond &= beyond - 1;
            for (feature, x) in row.iter().enumerate().skip(first).take(GROUP) {
                self.count(feature, *x, levels);
            }
        }
    }

    pub(super) fn value(&mut self, feature: usize, x: f32, levels: &mut [u8]) {
        if !x.is_finite() {
            *(if x.is_nan() { &mut self.nan } else { &mut self.infinite }) += 1;
            return;
        }
        self.max[feature] = self.max[feature].max(x);
        self.min[feature] = self.min[feature].min(x);
        self.count(feature, x, levels);
    }

    /// Counts a finite value that reaches the lowest rung.
    pub(super) fn count(&mut self, feature: usize, x: f32, levels: &mut [u8]) {
        if x.abs() >= self.ladder[0] {
            let rung = self.ladder.partition_point(|rung| *rung <= x.abs()) - 1;
            let side = if x > 0.0 { &mut self.positive } else { &mut self.negative };
            side.hit(feature, rung);
            levels[feature] = levels[feature].max(rung as u8 + 1);
        }
    }

    pub(super) fn norm_fold(&self, first: usize) -> NormFold {
        NormFold {
            max: self.max.clone(),
            min: self.min.clone(),
            positive: self.positive.ladders(first),
            negative: self.negative.ladders(first),
        }
    }
}

/// The bits of the largest |x|. They have the order of |x|, with infinity and NaN at the top.
#[inline(always)]
fn largest_bits(row: &[f32]) -> u32 {
    row.iter().fold(0u32, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff))
}

/// A bit for each group of features in which some |x| reaches `threshold`.
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
