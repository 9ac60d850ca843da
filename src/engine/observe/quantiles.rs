//! Quantiles of |x| at sites, from counts of values that have the same exponent and first bits of
//! the mantissa.
//!
//! Counts are whole numbers, so they add up in any order. A bin is at most 1/256 of its values
//! wide, and that is the largest relative error of a quantile.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::observer::{ExpertRows, Observer};
use super::stored;
use crate::error::Result;
use crate::record::{QUANTILE_LEVELS, Quantiles, Site, SiteId};
use crate::tensor::Tensor;

/// Number of low bits of the mantissa that are not looked at: eight of 23 are.
const LOW_BITS: u32 = 15;
/// Number of bins, of which the last 256 are for values that are not finite.
const BINS: usize = 1 << (31 - LOW_BITS);
const FINITE_BINS: usize = (0x7f80_0000 >> LOW_BITS) as usize;
/// The usual size in bytes of the counts of a sequence, whose values differ by 32 powers of two.
pub(super) const COUNTS_BYTES: usize = 8 * BINS / 8;
/// Number of values in one parallel task.
const PIECE: usize = 1 << 20;

pub struct QuantilesObserver {
    sites: Vec<Site>,
    positions: usize,
    /// Of the layer at work, by site and sequence, and by site over experts.
    sequences: BTreeMap<(SiteId, usize), Counts>,
    experts: BTreeMap<SiteId, Counts>,
    done: Vec<Quantiles>,
}

/// Counts of values in bins, from the first bin to the last that has any.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    first: usize,
    bins: Vec<u64>,
    largest: f32,
    non_finite: u64,
}

impl Counts {
    fn of(x: &[f32]) -> Self {
        let pieces: Vec<Self> = x.par_chunks(PIECE).map(Self::of_piece).collect();
        let mut counts = Self::default();
        pieces.iter().for_each(|piece| counts.add(piece));
        counts
    }

    fn of_piece(x: &[f32]) -> Self {
        let mut bins = vec![0u32; BINS];
        let mut largest = 0u32;
        for x in x {
            let bits = x.to_bits() & 0x7fff_ffff;
            bins[(bits >> LOW_BITS) as usize] += 1;
            largest = largest.max(if bits < 0x7f80_0000 { bits } else { 0 });
        }
        let non_finite = bins[FINITE_BINS..].iter().map(|count| u64::from(*count)).sum();
        let finite = &bins[..FINITE_BINS];
        let first = finite.iter().position(|count| *count > 0).unwrap_or(0);
        let last = finite.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
        let bins = finite[first..last].iter().map(|count| u64::from(*count)).collect();
        Self { first, bins, largest: f32::from_bits(largest), non_finite }
    }

    fn add(&mut self, more: &Self) {
        self.largest = self.largest.max(more.largest);
        self.non_finite += more.non_finite;
        if more.bins.is_empty() {
            return;
        }
        if self.bins.is_empty() {
            (self.first, self.bins) = (more.first, more.bins.clone());
            return;
        }
        if more.first < self.first {
            let missing = self.first - more.first;
            self.bins.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = more.first;
        }
        let end = (more.first + more.bins.len()).max(self.first + self.bins.len());
        self.bins.resize(end - self.first, 0);
        let at = more.first - self.first;
        self.bins[at..].iter_mut().zip(&more.bins).for_each(|(to, more)| *to += more);
    }

    fn values(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// The value of a rank, counted from 0. Values of a bin are taken as evenly spread over it.
    fn of_rank(&self, rank: u64) -> f64 {
        let mut below = 0;
        for (bin, count) in (self.first..).zip(&self.bins) {
            if rank < below + count {
                // The first bin has 0, and nothing else but the smallest subnormal numbers.
                if bin == 0 {
                    return 0.0;
                }
                let edge = |bin: usize| f64::from(f32::from_bits((bin as u32) << LOW_BITS));
                let (low, high) = (edge(bin), edge(bin + 1).min(f64::from(self.largest)));
                let share = ((rank - below) as f64 + 0.5) / *count as f64;
                return low + (high - low).max(0.0) * share;
            }
            below += count;
        }
        f64::from(self.largest)
    }

    /// The quantile at a level, linear between ranks.
    fn quantile(&self, level: f64) -> f32 {
        let Some(last) = self.values().checked_sub(1) else { return f32::NAN };
        let rank = level * last as f64;
        let below = rank.floor() as u64;
        if below >= last {
            return self.largest;
        }
        let (low, high) = (self.of_rank(below), self.of_rank(below + 1));
        (low + (high - low) * (rank - below as f64)) as f32
    }

    fn finish(&self, at: SiteId) -> Quantiles {
        let values = QUANTILE_LEVELS.map(|level| self.quantile(level)).to_vec();
        Quantiles { at, count: self.values(), non_finite: self.non_finite, values }
    }
}

impl QuantilesObserver {
    pub fn new(sites: &[Site], positions: usize) -> Self {
        let (sequences, experts) = (BTreeMap::new(), BTreeMap::new());
        Self { sites: sites.to_vec(), positions, sequences, experts, done: Vec::new() }
    }

    /// Adds up the sequences and experts of the layer at work.
    fn settle(&mut self) {
        let mut by_site = std::mem::take(&mut self.experts);
        for ((at, _), counts) in std::mem::take(&mut self.sequences) {
            by_site.entry(at).or_default().add(&counts);
        }
        self.done.extend(by_site.into_iter().map(|(at, counts)| counts.finish(at)));
    }

    /// The quantiles in the order of layers and sites.
    pub fn finish(mut self) -> Vec<Quantiles> {
        self.settle();
        self.done.sort_by_key(|of| of.at);
        self.done
    }
}

impl Observer for QuantilesObserver {
    fn wants(&self, site: SiteId) -> bool {
        self.sites.contains(&site.site)
    }

    fn wants_experts(&self, _layer: usize) -> bool {
        self.sites.contains(&Site::FfnMid)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        let per_sequence = self.positions * width;
        x.with_values(|values| {
            let counts: Vec<Counts> = values.par_chunks_exact(per_sequence).map(Counts::of).collect();
            self.sequences.extend(sequences.map(|sequence| (site, sequence)).zip(counts));
        })
    }

    fn observe_expert(&mut self, rows: &ExpertRows) -> Result<()> {
        let counts = rows.inner.with_values(Counts::of)?;
        self.experts.entry(SiteId { layer: rows.layer, site: Site::FfnMid }).or_default().add(&counts);
        Ok(())
    }

    stored::settled_in!(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(values: &[f32], level: f64) -> f64 {
        let mut sorted: Vec<f64> = values.iter().map(|x| f64::from(x.abs())).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = level * (sorted.len() - 1) as f64;
        let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
        sorted[below] + (sorted[above] - sorted[below]) * rank.fract()
    }

    #[test]
    fn quantiles_are_within_a_bin_of_the_sorted_values() {
        // Twelve orders of magnitude, both signs.
        let values: Vec<f32> =
            (0..10_000).map(|i| (((i * 7919) % 10_007) as f32 / 800.0 - 6.0).exp2() * [1.0, -1.0][i % 2]).collect();
        let counts = Counts::of(&values);
        for level in QUANTILE_LEVELS {
            let (got, expected) = (f64::from(counts.quantile(level)), exact(&values, level));
            assert!((got / expected - 1.0).abs() <= 1.0 / 256.0, "{level}: {got}, expected {expected}");
        }
        assert_eq!(counts.quantile(1.0), values.iter().fold(0f32, |most, x| most.max(x.abs())));
    }

    #[test]
    fn counts_add_up_in_any_order() {
        let values: Vec<f32> = (0..5_000).map(|i| ((i * 31) % 4_999) as f32 * 1e-3 - 2.0).collect();
        let (a, b) = values.split_at(1_234);
        let (a, b) = (Counts::of(a), Counts::of(b));
        let [mut one, mut other] = [a.clone(), b.clone()];
        one.add(&b);
        other.add(&a);
        assert_eq!(one, other);
        assert_eq!(one, Counts::of(&values));
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let counts = Counts::of(&[f32::NAN, 1.0, f32::NEG_INFINITY, -3.0, 0.0]);
        assert_eq!((counts.values(), counts.non_finite, counts.quantile(1.0)), (3, 2, 3.0));
        assert_eq!(counts.quantile(0.0), 0.0);
        assert!(Counts::of(&[]).quantile(0.5).is_nan());
    }
}
