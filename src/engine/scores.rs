//! Next-token distributions that are never whole: losses, most probable tokens and divergences are
//! added up over blocks of the vocabulary.

use rayon::prelude::*;

use crate::gemm::Seen;
use crate::vector::{exp, vectorised};

/// Number of partial sums, whose order is fixed: a sum has the same value for every register width.
const PARTS: usize = 16;

/// Number of values among which the largest is looked for at once.
const AT_ONCE: usize = 64;

/// e^x for x up to 0; 0 for what is less than e^-87.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    if x < -87.0 { 0.0 } else { exp(x) }
}

/// Computes the exponentials of logits relative to `max`.
#[inline(always)]
fn exponentials(logits: &[f32], max: f32, to: &mut [f32]) {
    for (to, logit) in to.iter_mut().zip(logits) {
        *to = exponential(logit - max);
    }
}

/// Computes weight * (logit of lane 0 - logit).
#[inline(always)]
fn terms((base, weights): (&[f32], &[f32]), logits: &[f32], to: &mut [f32]) {
    for (((to, weight), of_base), logit) in to.iter_mut().zip(weights).zip(base).zip(logits) {
        // A token that is impossible in lane 0 adds nothing.
        let term = weight * (of_base - logit);
        *to = if *weight == 0.0 { 0.0 } else { term };
    }
}

/// The sum of the values, in partial sums.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    let mut parts = [0f32; PARTS];
    let (whole, rest) = values.as_chunks::<PARTS>();
    for chunk in whole {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part += x;
        }
    }
    for (part, x) in parts.iter_mut().zip(rest) {
        *part += x;
    }
    parts.iter().map(|part| f64::from(*part)).sum()
}

/// The largest of the numbers; -∞ if there is none.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut parts = [f32::NEG_INFINITY; PARTS];
    let (whole, rest) = values.as_chunks::<PARTS>();
    for (part, x) in parts.iter_mut().zip(rest) {
        *part = if *x > *part { *x } else { *part };
    }
    for chunk in whole {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part = if *x > *part { *x } else { *part };
        }
    }
    parts.iter().fold(f32::NEG_INFINITY, |max, part| max.max(*part))
}

/// The first place of `value`, or 0.
#[inline(always)]
fn place(values: &[f32], value: f32) -> usize {
    let holds = |some: &[f32]| some.iter().fold(false, |found, x| found | (*x == value));
    let Some(at) = values.chunks(AT_ONCE).position(holds) else { return 0 };
    let first = at * AT_ONCE;
    first + values[first..].iter().position(|x| *x == value).unwrap_or(0)
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

/// Some logits of one position, or all of them.
#[derive(Clone)]
pub(super) struct Running {
    /// The largest logit, and where it is.
    max: f32,
    top: usize,
    /// The sum of exponentials relative to the largest logit.
    sum: f64,
    /// The logit of the next token, if it is among these.
    target: Option<f32>,
}

impl Running {
    pub(super) const NONE: Self = Self { max: f32::NEG_INFINITY, top: 0, sum: 0.0, target: None };

    /// The logits of the tokens from `first` on. `target` is the next token. `weights` get the
    /// exponential of each logit relative to the largest one.
    fn of(logits: &[f32], first: usize, target: Option<usize>, weights: &mut [f32]) -> Self {
        let (max, least, top) = highest(logits);
        vectorised!(|| exponentials(logits, least, weights));
        let sum = vectorised!(|| sum(weights));
        Self { max, top: first + top, sum, target: logit_of(target, first, logits) }
    }

    /// Adds the logits of the tokens that follow. The results are what sums relative to the largest
    /// logit are to be multiplied with: those so far, and those of `more`.
    fn add(&mut self, more: &Self) -> [f64; 2] {
        let max = if more.max > self.max { more.max } else { self.max };
        let relative = |to: f32| if to == max { 1.0 } else { f64::from(to - max).exp() };
        let factors = [relative(self.max), relative(more.max)];
        if more.max > self.max {
            self.top = more.top;
        }
        self.max = max;
        self.sum = self.sum * factors[0] + more.sum * factors[1];
        self.target = self.target.or(more.target);
        factors
    }

    pub(super) fn loss(&self) -> f64 {
        self.sum.ln() + f64::from(self.max - self.target.unwrap_or(0.0))
    }

    /// The largest probability.
    fn top_probability(&self) -> f64 {
        1.0 / self.sum
    }
}

/// The largest logit, a number that can be subtracted from it and from others, and its place.
fn highest(logits: &[f32]) -> (f32, f32, usize) {
    let max = vectorised!(|| largest(logits));
    (max, if max == f32::NEG_INFINITY { 0.0 } else { max }, vectorised!(|| place(logits, max)))
}

/// The logit of a token, if it is among those of the tokens from `first` on.
fn logit_of(token: Option<usize>, first: usize, logits: &[f32]) -> Option<f32> {
    token.and_then(|token| token.checked_sub(first)).and_then(|i| logits.get(i)).copied()
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

    /// The logits of the tokens from `first` on. `base` has those of lane 0, and `weights` what
    /// `Running::of` made of them. `room` is for as many numbers.
    fn of(
        (base, weights, room): (&[f32], &[f32], &mut [f32]),
        logits: &[f32],
        first: usize,
        target: Option<usize>,
    ) -> Self {
        let (max, least, top) = highest(logits);
        // Each loop is small enough to be compiled for wide registers.
        vectorised!(|| exponentials(logits, least, room));
        let own = vectorised!(|| sum(room));
        vectorised!(|| terms((base, weights), logits, room));
        let weighted = vectorised!(|| sum(room));
        let own = Running { max, top: first + top, sum: own, target: logit_of(target, first, logits) };
        Self { own, weighted }
    }

    /// Adds the logits of the tokens that follow. `factors` are those of lane 0.
    fn add(&mut self, more: &Self, factors: &[f64; 2]) {
        self.weighted = self.weighted * factors[0] + more.weighted * factors[1];
        self.own.add(&more.own);
    }

    fn divergence(&self, base: &Running) -> f64 {
        let largest = f64::from(base.max) - f64::from(self.own.max);
        self.weighted / base.sum - largest - (base.sum.ln() - self.own.sum.ln())
    }
}

/// What the logits of some rows say, for a part of the vocabulary.
pub(super) struct Part {
    base: Vec<Running>,
    lanes: Vec<Vec<Compared>>,
    /// Of the rows at work: what `Running::of` makes of lane 0.
    weights: Vec<f32>,
    room: Vec<f32>,
    /// The rows whose logits are wanted, in ascending order, with these.
    kept: Vec<(usize, Vec<f32>)>,
}

impl Part {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            base: Vec::new(),
            lanes: vec![Vec::new(); lanes],
            weights: Vec::new(),
            room: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Adds logits. The first token of all has the number `first`; `target` is the next token of a
    /// row, and `keep` is true for rows whose logits are wanted.
    pub(super) fn add(
        &mut self,
        piece: &Seen,
        first: usize,
        target: impl Fn(usize) -> Option<usize>,
        keep: impl Fn(usize) -> bool,
    ) {
        let (width, first) = (piece.columns.len(), first + piece.columns.start);
        self.weights.resize(piece.values.len(), 0.0);
        let logits = piece.rows.clone().zip(piece.values.chunks_exact(width));
        let weights = self.weights.chunks_exact_mut(width);
        match piece.operand.checked_sub(1) {
            None => logits.zip(weights).for_each(|((row, logits), weights)| {
                self.base.push(Running::of(logits, first, target(row), weights));
                if keep(row) {
                    self.kept.push((row, logits.to_vec()));
                }
            }),
            Some(lane) => {
                self.room.resize(width, 0.0);
                let base = piece.first.chunks_exact(width).zip(weights);
                logits.zip(base).for_each(|((row, logits), (base, weights))| {
                    self.lanes[lane].push(Compared::of((base, weights, &mut self.room), logits, first, target(row)));
                });
            }
        }
    }

    /// Adds this part to what earlier parts of the vocabulary say of the same rows, of lane 0 and
    /// of the others, and returns the logits that were wanted.
    pub(super) fn add_to(self, base: &mut [Running], lanes: &mut [&mut [Compared]]) -> Vec<(usize, Vec<f32>)> {
        let factors: Vec<[f64; 2]> = base.par_iter_mut().zip(&self.base).map(|(all, more)| all.add(more)).collect();
        lanes.par_iter_mut().zip(&self.lanes).for_each(|(all, more)| {
            all.iter_mut().zip(more).zip(&factors).for_each(|((all, more), factors)| all.add(more, factors));
        });
        self.kept
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
    fn tokens_that_are_impossible_add_nothing() {
        let none = f32::NEG_INFINITY;
        let base = [none, none, none, 1.0, 0.0, none];
        let lane = [none, 2.0, none, 1.0, 0.0, none];
        let (mut of_base, mut of_lane) = (Running::NONE, Compared::NONE);
        for first in [0, 3] {
            let (base, lane, weights) = (&base[first..first + 3], &lane[first..first + 3], &mut [0.0; 3]);
            let (more, target) = (Running::of(base, first, Some(4), weights), Some(4));
            let compared = Compared::of((base, weights, &mut [0.0; 3]), lane, first, target);
            let factors = of_base.add(&more);
            of_lane.add(&compared, &factors);
        }
        let of = |logits: &[f32]| logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let loss = [of_base.loss() - of(&base), of_lane.own.loss() - of(&lane)];
        assert!(loss.iter().all(|difference| difference.abs() < 1e-6), "{loss:?}");
        assert!((of_lane.divergence(&of_base) - (of(&lane) - of(&base))).abs() < 1e-6);
        assert_eq!((of_base.top, of_lane.own.top), (3, 1));
        let nan = [f32::NAN, 1.0];
        assert!(Running::of(&nan, 0, Some(1), &mut [0.0; 2]).loss().is_nan());
    }

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
            let columns = first..(first + 3).min(7);
            let (mut part, mut values) = (Part::new(1), lane[columns.clone()].to_vec());
            let mut own = base[columns.clone()].to_vec();
            let mut see = |operand: usize, values: &mut [f32], first: &[f32]| {
                let piece = Seen { operand, rows: 2..3, columns: columns.clone(), values, first };
                part.add(&piece, 0, |_| Some(4), |row| row == 2);
            };
            see(0, &mut own, &[]);
            see(1, &mut values, &base[columns.clone()]);
            let kept = part.add_to(std::slice::from_mut(&mut of_base), &mut [std::slice::from_mut(&mut of_lane)]);
            assert_eq!(kept, [(2, own)]);
        }
        let all = scores(1, &[of_base.clone()], &[vec![of_lane.clone()]]);
        assert!((f64::from(all[1].kl[0]) - expected).abs() < 4e-7 && all[0].kl == [0.0], "{all:?} {expected}");
        assert!((of_lane.own.loss() + q[4]).abs() < 1e-6);
        assert_eq!((of_base.top, of_lane.own.top), (2, 5));
        assert_eq!((all[0].top1_agreement[0], all[1].top1_agreement[0]), (1.0, 0.0));
        assert!((f64::from(all[1].top1_probability[0]) - q[5].exp()).abs() < 1e-6);
        assert!(all.iter().all(|scores| scores.mean_nll.is_empty()));
    }
}
