//! The number of sequences that a classification needs: its agreement on subsets of the sequences,
//! and the number that would separate a position share from its limit.
//!
//! The agreement is a fact about the record: subsets are drawn without replacement. The number is
//! an estimate: a normal approximation with the observed spread between sequences. Layer shares are
//! unions that only grow with more sequences, so there is no estimate for them.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::Result;
use crate::record::{
    Activations, Agreement, BootstrapArgs, Classification, Criterion, SequencesNeeded, UndecidedFeature,
};

use super::criterion::{BoundCriterion, Counts, classify_model, share};
use super::hit_table::HitTable;
use super::normal_quantile;
use super::outcome::{Outcome, can_pass, outcomes_on};

/// `n_resamples` of `args` is the number of draws of each size.
pub fn sequences_needed(acts: &Activations, criterion: &Criterion, args: &BootstrapArgs) -> Result<SequencesNeeded> {
    super::bootstrap::check(acts, criterion, args)?;
    let applied = BoundCriterion::new(acts, criterion)?;
    let hits = HitTable::new(&applied);
    let n = acts.num_sequences;
    let candidates: Vec<usize> = hits.hit(0..n).filter(|&feature| can_pass(&applied, &hits, feature)).collect();
    let samples = prefixes(n, args);
    let zero = || vec![Sums::default(); samples.len()];
    let add = |mut sums: Vec<Sums>, &feature: &usize| {
        let outcomes = outcomes_on(&applied, &hits, samples.iter().map(Vec::as_slice), feature);
        add_feature(&mut sums, &outcomes, n);
        sums
    };
    let join = |mut one: Vec<Sums>, other: Vec<Sums>| {
        one.iter_mut().zip(other).for_each(|(one, other)| one.add(&other));
        one
    };
    let sums = candidates.par_iter().fold(zero, add).reduce(zero, join);
    let needed = needed(&sums, n, args);
    let shares: Vec<Shares> = candidates.iter().map(|&feature| Shares::new(&applied, &hits, feature, args)).collect();
    let mut undecided: Vec<UndecidedFeature> =
        shares.iter().filter(|s| s.needed.is_none_or(|needed| needed > n)).map(Shares::undecided).collect();
    undecided.sort_by_key(|feature| (feature.needed.is_none(), feature.needed, feature.feature_dim));
    Ok(SequencesNeeded { decides: decides(&shares, needed.classification, n), undecided, ..needed })
}

/// Sums over features for one sample.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    passing: usize,
    systematic: usize,
    /// Number of passing features that pass with all sequences as well.
    in_common: usize,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.passing += other.passing;
        self.systematic += other.systematic;
        self.in_common += other.in_common;
    }
}

/// Adds one feature to the sums of all samples. The last sample of every permutation of `n`
/// sequences has all of them.
pub(super) fn add_feature(sums: &mut [Sums], outcomes: &[Outcome], n: usize) {
    let with_all = outcomes[n - 1].class != Classification::None;
    for (sum, outcome) in sums.iter_mut().zip(outcomes) {
        let passes = outcome.class != Classification::None;
        sum.passing += usize::from(passes);
        sum.systematic += usize::from(outcome.class == Classification::Systematic);
        sum.in_common += usize::from(passes && with_all);
    }
}

/// What the sums over all features say, without a comparison with the limits.
pub(super) fn needed(sums: &[Sums], n: usize, args: &BootstrapArgs) -> SequencesNeeded {
    let class = |sum: &Sums| classify_model(sum.passing, sum.systematic);
    let all = sums[n - 1];
    let classification = class(&all);
    let of_size = |size: usize| sums.iter().skip(size - 1).step_by(n);
    let share = |size, holds: &dyn Fn(&Sums) -> bool| {
        of_size(size).filter(|sum| holds(sum)).count() as f64 / args.n_resamples as f64
    };
    let agreement = |size| Agreement {
        num_sequences: size,
        same_classification: share(size, &|sum| class(sum) == classification),
        // Both sets are equal if each has as many features as they have in common.
        same_features: share(size, &|sum| sum.passing == sum.in_common && sum.in_common == all.passing),
        mean_features: of_size(size).map(|sum| sum.passing as f64).sum::<f64>() / args.n_resamples as f64,
    };
    let agreement: Vec<Agreement> = (1..=n).map(agreement).collect();
    let sufficient = |share: fn(&Agreement) -> f64| sufficient(&agreement, share, args.confidence_level);
    SequencesNeeded {
        num_sequences: n,
        classification,
        confidence_level: args.confidence_level,
        sufficient: sufficient(|size| size.same_classification),
        sufficient_for_features: sufficient(|size| size.same_features),
        agreement,
        decides: None,
        undecided: Vec::new(),
    }
}

/// The smallest number of sequences from which on the share is at least `level`.
fn sufficient(agreement: &[Agreement], share: fn(&Agreement) -> f64, level: f64) -> Option<usize> {
    // The full sample always agrees with itself, so the last size never fails.
    let fails = agreement.iter().rposition(|size| share(size) < level);
    fails.map_or(Some(1), |size| agreement.get(size + 1).map(|a| a.num_sequences))
}

/// The first 1, 2, … sequences of every random permutation.
pub(super) fn prefixes(n: usize, args: &BootstrapArgs) -> Vec<Vec<u32>> {
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut samples = Vec::with_capacity(n * args.n_resamples);
    for _ in 0..args.n_resamples {
        order.shuffle(&mut random);
        samples.extend((1..=n).map(|size| order[..size].to_vec()));
    }
    samples
}

/// The position share of one feature with a sufficient layer share.
struct Shares {
    feature: usize,
    class: Classification,
    layer_percentage: f64,
    mean: f64,
    standard_error: f64,
    needed: Option<usize>,
}

impl Shares {
    fn new(applied: &BoundCriterion, hits: &HitTable, feature: usize, args: &BootstrapArgs) -> Self {
        let sequences = 0..applied.acts.num_sequences;
        let n = sequences.len() as f64;
        let positions: Vec<u64> = sequences.clone().map(|s| u64::from(hits.positions(feature, s))).collect();
        let layers = hits.layers(applied.criterion.layer_unit);
        let counts = Counts {
            layers_hit: layers.union(feature, sequences).len(),
            num_layers: layers.num_layers,
            positions_hit: positions.iter().sum(),
            num_positions: applied.num_positions(),
        };
        let mean = share(counts.positions_hit, counts.num_positions);
        let squares = positions.iter().map(|&hit| (share(hit, applied.positions) - mean).powi(2)).sum::<f64>();
        let deviation = (squares / (n - 1.0)).sqrt();
        let gap = (mean - applied.criterion.min_seq_percentage).abs();
        let quantile = normal_quantile(0.5 + args.confidence_level / 2.0);
        let needed = (quantile * deviation / gap).powi(2).ceil();
        Self {
            feature,
            class: applied.classify(&counts),
            layer_percentage: share(counts.layers_hit as u64, counts.num_layers as u64),
            mean,
            standard_error: deviation / n.sqrt(),
            // At least two, because one sequence has no spread.
            needed: (needed.is_finite() && needed < 1e9).then_some((needed as usize).max(2)),
        }
    }

    fn undecided(&self) -> UndecidedFeature {
        UndecidedFeature {
            feature_dim: self.feature,
            layer_percentage: self.layer_percentage,
            seq_percentage: self.mean,
            standard_error: self.standard_error,
            needed: self.needed,
        }
    }
}

/// The number of sequences that decides the class. One feature that is separated from the limit
/// decides a class that it has; the class none needs all features that might pass to be separated.
fn decides(shares: &[Shares], classification: Classification, n: usize) -> Option<usize> {
    match classification {
        Classification::None if shares.is_empty() => Some(n.min(2)),
        Classification::None => shares.iter().map(|s| s.needed).collect::<Option<Vec<_>>>()?.into_iter().max(),
        class => shares.iter().filter(|s| s.class == class).filter_map(|s| s.needed).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;

    fn args() -> BootstrapArgs {
        BootstrapArgs { n_resamples: 200, ..BootstrapArgs::default() }
    }

    /// A feature with hits in every layer, at `hits` of 100 positions of each sequence.
    fn needed(hits: &[usize]) -> SequencesNeeded {
        let shape = [1, hits.len(), 100, 2];
        let dense = Dense::drawn(shape, |[_, s, t, d]| if d == 1 && t < hits[s] { 7.0 } else { 0.0 });
        sequences_needed(&dense.activations(&[6.0]), &Criterion::default(), &args()).unwrap()
    }

    #[test]
    fn equal_sequences_decide_at_once() {
        let got = needed(&[50; 8]);
        assert_eq!((got.classification, got.sufficient, got.decides), (Classification::Systematic, Some(1), Some(2)));
        assert!(got.undecided.is_empty() && got.agreement.iter().all(|a| a.same_classification == 1.0));
        let none = needed(&[0; 4]);
        assert_eq!((none.classification, none.sufficient, none.decides), (Classification::None, Some(1), Some(2)));
    }

    #[test]
    fn a_share_near_its_limit_takes_more() {
        // Mean 8 %, standard deviation over sequences 8.55 %, gap 2 %: (1.96 * 8.55 / 2)^2 = 70.2.
        let got = needed(&[0, 16, 0, 16, 0, 16, 0, 16]);
        assert_eq!((got.classification, got.decides), (Classification::Systematic, Some(71)));
        assert_eq!((got.undecided.len(), got.undecided[0].needed), (1, Some(71)));
        // Half of the single sequences pass.
        assert!((got.agreement[0].same_classification - 0.5).abs() < 0.15, "{:?}", got.agreement[0]);
        assert_eq!((got.agreement[7].same_classification, got.agreement[7].mean_features), (1.0, 1.0));
        assert!(got.sufficient.is_some_and(|sufficient| sufficient > 2), "{:?}", got.sufficient);
    }

    #[test]
    fn a_class_may_be_stable_while_the_features_are_not() {
        // Feature 0 has hits in every sequence. Feature 1 has all of its hits in the first of four,
        // and passes with any sequences of which that is one.
        let shape = [1, 4, 100, 2];
        let dense = Dense::drawn(shape, |[_, s, t, d]| if t < 50 && (d == 0 || s == 0) { 7.0 } else { 0.0 });
        let got = sequences_needed(&dense.activations(&[6.0]), &Criterion::default(), &args()).unwrap();
        assert_eq!((got.sufficient, got.sufficient_for_features), (Some(1), Some(4)));
        for (size, agreement) in (1..=4).zip(&got.agreement) {
            // The first sequence is among so many of four.
            let expected = f64::from(size) / 4.0;
            assert!((agreement.same_features - expected).abs() < 0.12, "{agreement:?}");
            assert!((agreement.mean_features - 1.0 - agreement.same_features).abs() < 1e-12);
            assert_eq!(agreement.same_classification, 1.0);
        }
    }

    #[test]
    fn a_share_on_its_limit_is_never_decided() {
        let got = needed(&[12, 0]);
        assert_eq!((got.decides, got.undecided[0].needed), (None, None));
    }
}
