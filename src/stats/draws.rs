//! The samples of a bootstrap as lists of sequences: the full sample, the jackknife (each sequence
//! left out once), and the resamples.
//!
//! Sequences are drawn with replacement. Tokens are not, because the tokens of one text depend on
//! each other. All draws are made in advance from one seeded generator, so that results do not
//! depend on the threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Replicates;

/// Samples as lists of sequence indices.
pub(super) struct Draws {
    num_sequences: usize,
    everything: Vec<u32>,
    /// `[num_sequences][num_sequences - 1]`
    leave_one_out: Vec<u32>,
    /// `[n_resamples][num_sequences]`
    resamples: Vec<u32>,
}

impl Draws {
    /// Draws the samples. At least two sequences are needed.
    pub(super) fn new(num_sequences: usize, n_resamples: usize, seed: u64) -> Self {
        let last = num_sequences as u32;
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        Self {
            num_sequences,
            everything: (0..last).collect(),
            leave_one_out: (0..last).flat_map(|out| (0..last).filter(move |&sequence| sequence != out)).collect(),
            resamples: (0..n_resamples * num_sequences).map(|_| generator.random_range(0..last)).collect(),
        }
    }

    /// All samples: the full one, the jackknife, then the resamples.
    pub(super) fn samples(&self) -> impl Iterator<Item = &[u32]> + Clone {
        let jackknife = self.leave_one_out.chunks_exact(self.num_sequences - 1);
        std::iter::once(&self.everything[..]).chain(jackknife).chain(self.resamples.chunks_exact(self.num_sequences))
    }

    pub(super) fn num_samples(&self) -> usize {
        1 + self.num_sequences + self.resamples.len() / self.num_sequences
    }

    /// The values of the resamples, of one value per sample.
    pub(super) fn resampled<'a, T>(&self, values: &'a [T]) -> &'a [T] {
        &values[1 + self.num_sequences..]
    }

    /// Splits a statistic with one value per sample into its parts.
    pub(super) fn replicates(&self, values: Vec<f64>) -> Replicates {
        Replicates {
            observed: values[0],
            jackknife: values[1..=self.num_sequences].to_vec(),
            resampled: self.resampled(&values).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_order_and_replicates_find_them() {
        let draws = Draws::new(3, 4, 0);
        let samples: Vec<&[u32]> = draws.samples().collect();
        assert_eq!(samples[..4], [&[0u32, 1, 2][..], &[1, 2], &[0, 2], &[0, 1]]);
        assert_eq!((samples.len(), draws.num_samples()), (8, 8));
        assert!(samples[4..].iter().all(|sample| sample.len() == 3 && sample.iter().all(|&s| s < 3)));
        let replicates = draws.replicates((0..8).map(f64::from).collect());
        assert_eq!(replicates.observed, 0.0);
        assert_eq!((replicates.jackknife, replicates.resampled), (vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0, 7.0]));
    }

    #[test]
    fn the_seed_decides() {
        let drawn = |seed| Draws::new(16, 50, seed).resamples;
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        // These numbers must never change: results contain their seed, and a new version must draw
        // the same.
        assert_eq!(drawn(0)[..8], [10, 11, 11, 7, 8, 11, 8, 0]);
    }

    #[test]
    fn every_sequence_is_drawn_equally_often() {
        let mut times = [0u32; 16];
        Draws::new(16, 10_000, 3).resamples.iter().for_each(|&sequence| times[sequence as usize] += 1);
        // The expected value is 10,000 and the standard deviation 97.
        assert!(times.iter().all(|&n| n.abs_diff(10_000) < 500), "{times:?}");
    }
}
