//! The signed hits of one feature as counts between the rungs of the ladder: their number and their
//! quartiles.
//!
//! LLM.int8(), Table 4, reports quartiles of the signed outlier values. The record does not have
//! the values themselves, but their number between neighbouring rungs and the exact extremes. The
//! values of a bin are therefore assumed to be evenly spaced over it, after the bin is clipped to
//! the extremes, which are exact values. The error of a quartile is at most the width of the widest
//! neighbouring bin.

use std::ops::Range;

use crate::record::{Fold, Ladders};

use super::linear_quantile;

/// The probabilities of the quartiles.
const QUARTILES: [f64; 3] = [0.25, 0.5, 0.75];

/// Counts of one feature at every rung, summed over norms and sequences, for both signs.
pub(super) struct SignedLadder {
    positive: Vec<u64>,
    negative: Vec<u64>,
}

/// Values between two edges. If an edge is attained, it is itself a value.
struct Bin {
    low: f64,
    high: f64,
    low_attained: bool,
    high_attained: bool,
    count: u64,
}

impl SignedLadder {
    pub(super) fn new(fold: &Fold, feature: usize, sequences: Range<usize>, num_rungs: usize) -> Self {
        let mut sums = Self { positive: vec![0; num_rungs], negative: vec![0; num_rungs] };
        for cell in fold.norms.iter().flat_map(|norm| &norm[sequences.clone()]) {
            add(&mut sums.positive, &cell.positive, feature);
            add(&mut sums.negative, &cell.negative, feature);
        }
        sums
    }

    /// Number of values at or beyond `rung`, of both signs; 0 beyond the last rung.
    pub(super) fn hits(&self, rung: usize) -> u64 {
        let at = |counts: &[u64]| counts.get(rung).copied().unwrap_or(0);
        at(&self.positive) + at(&self.negative)
    }

    /// Quartiles of the signed values at or beyond `rung`, where `max` and `min` are the signed
    /// extremes of the feature. If no value is at or beyond the rung, they are the larger extreme.
    pub(super) fn quartiles(&self, ladder: &[f32], rung: usize, max: f32, min: f32) -> [f64; 3] {
        if self.hits(rung) == 0 {
            return [f64::from(if max >= -min { max } else { min }); 3];
        }
        let edge = |rung: usize| ladder.get(rung).map_or(f64::INFINITY, |&value| f64::from(value));
        let within = |counts: &[u64], rung: usize| counts[rung] - counts.get(rung + 1).copied().unwrap_or(0);
        let (max, min) = (f64::from(max), f64::from(min));
        let negative = (rung..ladder.len()).rev().map(|r| (-edge(r + 1), -edge(r), within(&self.negative, r)));
        let positive = (rung..ladder.len()).map(|r| (edge(r), edge(r + 1), within(&self.positive, r)));
        let bins: Vec<Bin> = negative
            .chain(positive)
            .filter(|&(_, _, count)| count > 0)
            .map(|(low, high, count)| Bin {
                low: low.max(min),
                high: high.min(max),
                low_attained: low <= min,
                high_attained: high >= max,
                count,
            })
            .collect();
        QUARTILES.map(|p| linear_quantile(self.hits(rung), p, |rank| value_at(&bins, rank)))
    }
}

fn add(sums: &mut [u64], ladders: &Ladders, feature: usize) {
    if let Some(ladder) = ladders.of(feature) {
        sums.iter_mut().zip(ladder.counts).for_each(|(sum, &count)| *sum += u64::from(count));
    }
}

/// The value of this rank (from 0) in all bins, which are in ascending order.
fn value_at(bins: &[Bin], rank: u64) -> f64 {
    let mut before = 0;
    for bin in bins {
        if rank < before + bin.count {
            return bin.value_at(rank - before);
        }
        before += bin.count;
    }
    f64::NAN
}

impl Bin {
    /// Evenly spaced values, with half a step of distance to an edge that is not attained.
    fn value_at(&self, rank: u64) -> f64 {
        let room = |attained: bool| if attained { 0.0 } else { 0.5 };
        let (below, above) = (room(self.low_attained), room(self.high_attained));
        let steps = (self.count - 1) as f64 + below + above;
        if steps == 0.0 { self.high } else { self.low + (self.high - self.low) * ((rank as f64 + below) / steps) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::{Dense, uniform};
    use super::*;

    fn quartiles(values: &[f32], ladder: &[f32], rung: usize) -> (u64, [f64; 3]) {
        let dense = Dense::drawn([1, 1, values.len(), 1], |[n, _, t, _]| if n == 0 { values[t] } else { 0.0 });
        let acts = dense.activations(ladder);
        let sums = SignedLadder::new(&acts.all, 0, 0..1, ladder.len());
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        (sums.hits(rung), sums.quartiles(ladder, rung, max, min))
    }

    // import numpy as np  # NumPy 2.4.6
    // def lcg(state):  # = dense::uniform
    //     while True:
    //         state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    //         yield (state >> 11) / 2**53
    // u = lcg(7)
    // x = np.array([(-1 if next(u) < 0.3 else 1) * (5 + 15 * next(u) ** 2) for _ in range(400)],
    //              dtype=np.float32)
    // hits = x[np.abs(x) >= 6].astype(float)
    // print(len(hits), np.quantile(hits, [0.25, 0.5, 0.75]).tolist())
    #[test]
    fn quartiles_are_those_of_numpy_within_a_rung() {
        let mut next = uniform(7);
        let values: Vec<f32> = (0..400)
            .map(|_| {
                let sign = if next() < 0.3 { -1.0 } else { 1.0 };
                (sign * (5.0 + 15.0 * next().powi(2))) as f32
            })
            .collect();
        let numpy = [-7.491806983947754, 7.695333003997803, 12.937320232391357];
        for (step, first) in [(2.0, 4.0), (0.5, 5.0), (0.125, 6.0)] {
            let ladder: Vec<f32> = (0..200).map(|rung| first + step * rung as f32).collect();
            let rung = ladder.iter().position(|&rung| rung == 6.0).unwrap();
            let (hits, got) = quartiles(&values, &ladder, rung);
            assert_eq!(hits, 290);
            for (got, want) in got.into_iter().zip(numpy) {
                assert!((got - want).abs() < f64::from(step), "{got} is not {want} within {step}");
            }
        }
    }

    #[test]
    fn extremes_stay_exact() {
        assert_eq!(quartiles(&[0.0, 7.25, 1.0], &[6.0], 0), (1, [7.25; 3]));
        assert_eq!(quartiles(&[-7.25, 1.0], &[3.0, 6.0, 8.0], 1), (1, [-7.25; 3]));
        assert_eq!(quartiles(&[8.0, 10.0], &[6.0], 0), (2, [8.5, 9.0, 9.5]));
        assert_eq!(quartiles(&[-6.0, 6.0], &[6.0], 0), (2, [-3.0, 0.0, 3.0]));
        assert_eq!(quartiles(&[7.0, 7.0, 7.0, 7.0], &[6.0], 0), (4, [7.0; 3]));
    }

    #[test]
    fn values_are_spread_evenly_between_rungs() {
        // Four of five values lie between 6 and 10, and the fifth is the maximum: 6.5, 7.5, 8.5,
        // 9.5, 12.
        assert_eq!(quartiles(&[1.0, 6.1, 6.1, 6.1, 9.9, 12.0], &[6.0, 10.0], 0), (5, [7.5, 8.5, 9.5]));
        assert_eq!(quartiles(&[-1.0, -6.1, -6.1, -6.1, -9.9, -12.0], &[6.0, 10.0], 0), (5, [-9.5, -8.5, -7.5]));
    }

    #[test]
    fn values_below_the_threshold_do_not_count() {
        assert_eq!(quartiles(&[-5.0, 3.5, 9.0, 10.0], &[3.0, 6.0], 1).0, 2);
        assert_eq!(quartiles(&[1.0], &[3.0], 0).0, 0);
    }
}
