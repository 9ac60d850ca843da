//! The attention that positions receive, added up while it is computed.
//!
//! Tasks add in any order. So that their sums do not depend on it, weights are added as integers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ops::operands::Received;
use crate::vector::vectorised;

/// A weight of 1 as an integer: 2^40. The sum of 2^23 weights stays below 2^63.
const ONE: f64 = (1u64 << 40) as f64;

/// sums += factor * weights
#[inline(always)]
fn accumulate(sums: &mut [f64], weights: &[f32], factor: f32) {
    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += f64::from(weight * factor));
}

/// Adds sums of weights as integers.
fn flush(to: &[AtomicU64], sums: &[f64]) {
    for (to, sum) in to.iter().zip(sums) {
        to.fetch_add((sum * ONE) as u64, Ordering::Relaxed);
    }
}

/// Sums over queries: of the weights that each key receives, and of the largest weight that each
/// query gives. All queries, and those before `first`, have a sum each.
pub(crate) struct Counts {
    heads: usize,
    positions: usize,
    first: usize,
    /// [sequences * heads][positions]
    all: Vec<AtomicU64>,
    /// [sequences * heads][first]
    early: Vec<AtomicU64>,
    /// [sequences * heads]
    largest: Vec<AtomicU64>,
    largest_early: Vec<AtomicU64>,
}

impl Counts {
    pub(crate) fn new(sequences: usize, heads: usize, positions: usize, first: usize) -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let (rows, first) = (sequences * heads, first.min(positions));
        Self {
            heads,
            positions,
            first,
            all: zeros(rows * positions),
            early: zeros(rows * first),
            largest: zeros(rows),
            largest_early: zeros(rows),
        }
    }

    /// Adds the weights of some queries of a head, from `first_query` on, to the keys from
    /// `first_key` on: exp(score - max) [queries, keys], to be multiplied by a factor per query.
    pub(crate) fn add(
        &self,
        (sequence, head): (usize, usize),
        (first_query, first_key): (usize, usize),
        exponentials: &[f32],
        factors: &[f32],
    ) {
        let row = sequence * self.heads + head;
        let keys = exponentials.len() / factors.len();
        let early = self.first.saturating_sub(first_query).min(factors.len());
        let (mut sums, mut largest) = (vec![0f64; keys], 0f64);
        for (query, (weights, factor)) in exponentials.chunks_exact(keys).zip(factors).enumerate() {
            if query == early && early > 0 {
                let to = self.first.saturating_sub(first_key).min(keys);
                flush(&self.early[row * self.first..][first_key.min(self.first)..], &sums[..to]);
                flush(&self.largest_early[row..], &[largest]);
            }
            vectorised!(|| accumulate(&mut sums, weights, *factor));
            largest += f64::from(weights.iter().fold(0f32, |most, weight| most.max(*weight)) * factor);
        }
        if early == factors.len() {
            let to = self.first.saturating_sub(first_key).min(keys);
            flush(&self.early[row * self.first..][first_key.min(self.first)..], &sums[..to]);
            flush(&self.largest_early[row..], &[largest]);
        }
        flush(&self.all[row * self.positions + first_key..], &sums);
        flush(&self.largest[row..], &[largest]);
    }

    pub(crate) fn finish(self) -> Received {
        let values = |counts: Vec<AtomicU64>| -> Vec<f64> {
            counts.into_iter().map(|count| count.into_inner() as f64 / ONE).collect()
        };
        Received {
            heads: self.heads,
            positions: self.positions,
            first: self.first,
            all: values(self.all),
            early: values(self.early),
            largest: values(self.largest),
            largest_early: values(self.largest_early),
        }
    }
}
