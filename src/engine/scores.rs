//! Next-token distributions that are never whole: losses, most probable tokens and divergences are
//! added up over blocks of the vocabulary.

use rayon::prelude::*;

use crate::vector::{exp_of_negative, vectorised};

/// Number of partial sums, whose order is fixed: a sum has the same value for every register width.
const PARTS: usize = 8;

/// Number of exponentials that are computed before they are added, a multiple of `PARTS`.
const AT_ONCE: usize = 64;

/// Computes the exponentials of logits relative to `max`.
#[inline(always)]
fn exponentials(logits: &[f32], max: f32, to: &mut [f64]) {
    for (to, logit) in to.iter_mut().zip(logits) {
        *to = exp_of_negative(f64::from(logit - max));
    }
}

/// Adds values to partial sums.
#[inline(always)]
fn add(values: &[f64], parts: &mut [f64; PARTS]) {
    let (whole, rest) = values.as_chunks::<PARTS>();
    for chunk in whole {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part += x;
        }
    }
    for (part, x) in parts.iter_mut().zip(rest) {
        *part += x;
    }
}

/// The sum of the exponentials of logits relative to `max`.
fn sum_of_exponentials(logits: &[f32], max: f32) -> f64 {
    vectorised(|| {
        let (mut parts, mut room) = ([0f64; PARTS], [0f64; AT_ONCE]);
        for logits in logits.chunks(AT_ONCE) {
            let of_these = &mut room[..logits.len()];
            exponentials(logits, max, of_these);
            add(of_these, &mut parts);
        }
        parts.iter().sum()
    })
}

/// The largest of the numbers; -∞ if there is none.
fn largest(values: &[f32]) -> f32 {
    vectorised(|| {
        let mut parts = [f32::NEG_INFINITY; PARTS];
        let (whole, rest) = values.as_chunks::<PARTS>();
        for x in rest {
            parts[0] = if *x > parts[0] { *x } else { parts[0] };
        }
        for chunk in whole {
            for (part, x) in parts.iter_mut().zip(chunk) {
                *part = if *x > *part { *x } else { *part };
            }
        }
        parts.iter().fold(f32::NEG_INFINITY, |max, part| max.max(*part))
    })
}

/// What the head's logits say of one lane, by sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneScores {
    /// Mean over t of -log p(x[t+1] | x[..=t]) in nats; empty for sequences of one token.
    pub mean_nll: Vec<f32>,
    /// Mean over positions of the Kullback-Leibler divergence from lane 0, in nats.
    pub kl: Vec<f32>,
    pub top1_agreement: Vec<f32>,
    pub top1_probability: Vec<f32>,
}

/// The logits of one position so far.
#[derive(Clone)]
pub(super) struct Running {
    /// The largest logit, and where it is.
    max: f32,
    top: usize,
    /// The sum of exponentials relative to the largest logit.
    sum: f64,
    /// The logit of the next token.
    target: f32,
}

impl Running {
    pub(super) const NONE: Self = Self { max: f32::NEG_INFINITY, top: 0, sum: 0.0, target: 0.0 };

    /// Adds the logits of the tokens from `first` on. `target` is the next token.
    pub(super) fn block(&mut self, logits: &[f32], first: usize, target: Option<usize>) {
        let shrunk = self.raise(logits, first, target);
        self.sum = self.sum * shrunk + sum_of_exponentials(logits, self.max);
    }

    /// The same. `weights` get the exponential of each logit relative to the largest one so far,
    /// and the result is what the weights of earlier blocks are to be multiplied with.
    pub(super) fn weigh(&mut self, logits: &[f32], first: usize, target: Option<usize>, weights: &mut [f64]) -> f64 {
        let shrunk = self.raise(logits, first, target);
        let max = self.max;
        let sum: f64 = vectorised(|| {
            let mut parts = [0f64; PARTS];
            exponentials(logits, max, weights);
            add(weights, &mut parts);
            parts.iter().sum()
        });
        self.sum = self.sum * shrunk + sum;
        shrunk
    }

    /// Notes the largest logit and the next token's, and returns by how much exponentials relative
    /// to the largest logit become smaller.
    fn raise(&mut self, logits: &[f32], first: usize, target: Option<usize>) -> f64 {
        let (before, max) = (self.max, largest(logits).max(self.max));
        if max > before {
            self.top = first + logits.iter().position(|logit| *logit == max).unwrap_or(0);
        }
        self.max = max;
        if let Some(logit) = target.and_then(|target| target.checked_sub(first)).and_then(|i| logits.get(i)) {
            self.target = *logit;
        }
        f64::from(before - max).exp()
    }

    pub(super) fn loss(&self) -> f64 {
        self.sum.ln() + (self.max - self.target) as f64
    }

    /// The largest probability.
    fn top_probability(&self) -> f64 {
        1.0 / self.sum
    }
}

/// The logits of one position in another lane.
#[derive(Clone)]
pub(super) struct Compared {
    own: Running,
    /// The sum over tokens of exp(logit - max) * (logit - own logit), with logit and max of lane 0.
    weighted: f64,
}

impl Compared {
    pub(super) const NONE: Self = Self { own: Running::NONE, weighted: 0.0 };

    /// Adds a block. `base` has the logits of lane 0, their weights, and what earlier weights are
    /// to be multiplied with, as `Running::weigh` gives them for all lanes.
    pub(super) fn block(
        &mut self,
        (of_base, weights, shrunk): (&[f32], &[f64], f64),
        logits: &[f32],
        first: usize,
        target: Option<usize>,
    ) {
        let terms = vectorised(|| {
            let mut parts = [0f64; PARTS];
            let term = |weight: f64, of_base: f32, own: f32| {
                // A token that is impossible in lane 0 adds nothing.
                let term = weight * (f64::from(of_base) - f64::from(own));
                if weight == 0.0 { 0.0 } else { term }
            };
            let (weights, last_weights) = weights.as_chunks::<PARTS>();
            let (of_base, last_of_base) = of_base.as_chunks::<PARTS>();
            let (own, last_own) = logits.as_chunks::<PARTS>();
            for ((weights, of_base), own) in weights.iter().zip(of_base).zip(own) {
                for i in 0..PARTS {
                    parts[i] += term(weights[i], of_base[i], own[i]);
                }
            }
            let last = last_weights.iter().zip(last_of_base).zip(last_own);
            for (part, ((weight, of_base), own)) in parts.iter_mut().zip(last) {
                *part += term(*weight, *of_base, *own);
            }
            parts.iter().sum::<f64>()
        });
        self.weighted = self.weighted * shrunk + terms;
        self.own.block(logits, first, target);
    }

    fn divergence(&self, base: &Running) -> f64 {
        let largest = f64::from(base.max) - f64::from(self.own.max);
        self.weighted / base.sum - largest - (base.sum.ln() - self.own.sum.ln())
    }
}

/// The scores of lane 0, then those of the others, each with an entry for every position.
pub(super) fn scores(positions: usize, base: &[Running], others: &[Vec<Compared>]) -> Vec<LaneScores> {
    let unlike = |_: usize| 0.0;
    let mut all = vec![of_lane(positions, base, |i| &base[i], &unlike)];
    for lane in others {
        all.push(of_lane(positions, base, |i| &lane[i].own, &|i| lane[i].divergence(&base[i])));
    }
    all
}

fn of_lane<'a>(
    positions: usize,
    base: &[Running],
    own: impl Fn(usize) -> &'a Running + Sync,
    divergence: &(dyn Fn(usize) -> f64 + Sync),
) -> LaneScores {
    let sequences = base.len() / positions;
    let mean = |of: &(dyn Fn(usize) -> f64 + Sync), count: usize| -> Vec<f32> {
        let of_sequence = |s: usize| (s * positions..s * positions + count).map(of).sum::<f64>() / count as f64;
        (0..sequences).into_par_iter().map(|s| of_sequence(s) as f32).collect()
    };
    LaneScores {
        mean_nll: if positions > 1 { mean(&|i| own(i).loss(), positions - 1) } else { Vec::new() },
        kl: mean(divergence, positions),
        top1_agreement: mean(&|i| f64::from(u8::from(own(i).top == base[i].top)), positions),
        top1_probability: mean(&|i| own(i).top_probability(), positions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_blocks_are_those_of_whole_distributions() {
        let base = [0.3f32, -1.0, 4.0, 2.5, 0.0, 1.5, -3.0];
        let lane = [1.3f32, -0.5, 2.0, 2.6, 0.25, 5.5, -3.0];
        let log_softmax = |logits: &[f32]| -> Vec<f64> {
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            logits.iter().map(|x| f64::from(*x) - sum.ln()).collect()
        };
        let (p, q) = (log_softmax(&base), log_softmax(&lane));
        let expected: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        let (mut of_base, mut of_lane) = (Running::NONE, Compared::NONE);
        for first in [0, 3, 6] {
            let end = (first + 3).min(7);
            let mut weights = vec![0.0; end - first];
            let shrunk = of_base.weigh(&base[first..end], first, Some(4), &mut weights);
            of_lane.block((&base[first..end], &weights, shrunk), &lane[first..end], first, Some(4));
        }
        let all = scores(1, &[of_base.clone()], &[vec![of_lane.clone()]]);
        assert!((f64::from(all[1].kl[0]) - expected).abs() < 1e-7 && all[0].kl == [0.0], "{all:?} {expected}");
        assert!((of_lane.own.loss() + q[4]).abs() < 1e-6);
        assert_eq!((of_base.top, of_lane.own.top), (2, 5));
        assert_eq!((all[0].top1_agreement[0], all[1].top1_agreement[0]), (1.0, 0.0));
        assert!((f64::from(all[1].top1_probability[0]) - q[5].exp()).abs() < 1e-6);
        assert!(all.iter().all(|scores| scores.mean_nll.is_empty()));
    }
}
