//! Bootstrap intervals of a detection, and the share of resamples in which each class is the same.
//!
//! Whole sequences are resampled, and the pooled criterion is applied to every resample. The sums
//! over features are integers, so that the result does not depend on the number of threads. The
//! means over features are over the features that pass in the full sample, which is a fixed set.
//!
//! Layers hit and extremes are unions over sequences, and a resample has fewer distinct sequences.
//! Such a quantity can only fall, so that its interval may end at or below the observed value.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::record::{
    Activations, Bootstrap, BootstrapArgs, Classification, Criterion, FeatureIntervals, Interval, Scope,
};

use super::criterion::{BoundCriterion, classify_model, share};
use super::draws::Draws;
use super::hit_table::HitTable;
use super::interval;
use super::outcome::{Outcome, can_pass, outcomes};
use crate::threads;

/// The largest number of resamples. More would change no relevant digit, and each takes a few
/// hundred bytes per thread.
const MAX_RESAMPLES: usize = 1_000_000;
/// Number of features per task. A task sums over its features, which makes adding up the tasks
/// cheap.
const FEATURES_PER_TASK: usize = 16;

/// Intervals for the result of `detect` with the same criterion, which must be pooled.
pub fn bootstrap(acts: &Activations, criterion: &Criterion, args: &BootstrapArgs) -> Result<Bootstrap> {
    check(acts, criterion, args)?;
    let applied = BoundCriterion::new(acts, criterion)?;
    let hits = HitTable::new(&applied);
    let run = Run::new(&applied, &hits, args);
    let hit: Vec<usize> = hits.hit(0..acts.num_sequences).collect();
    let tasks = hit.par_chunks(FEATURES_PER_TASK).map(|features| run.partial(features));
    let partial = tasks.reduce_with(Partial::join).unwrap_or_else(|| run.partial(&[]));
    Ok(run.finish(partial))
}

pub(super) fn check(acts: &Activations, criterion: &Criterion, args: &BootstrapArgs) -> Result<()> {
    if criterion.scope == Scope::PerSequence {
        return Err(Error::bad_argument("a bootstrap over sequences cannot have `scope: \"per_sequence\"`")
            .hint("use `scope: \"pooled\"`: the sequences are what is resampled"));
    }
    check_args(acts.num_sequences, args)
}

/// The largest number of drawn sequences over all resamples. Each takes 4 bytes.
const MAX_DRAWS: usize = 1 << 28;

/// Checks that this number of sequences can be resampled with these options.
///
/// # Errors
/// `bad_argument` with the option that is out of range, and an error if no thread can be started.
pub(super) fn check_args(num_sequences: usize, args: &BootstrapArgs) -> Result<()> {
    let BootstrapArgs { n_resamples, confidence_level, .. } = *args;
    if n_resamples == 0 || n_resamples > MAX_RESAMPLES {
        return Err(Error::bad_argument(format!("`n_resamples` is {n_resamples}, outside 1 to {MAX_RESAMPLES}"))
            .hint("10000 is the usual choice"));
    }
    if !(confidence_level > 0.0 && confidence_level < 1.0) {
        return Err(Error::bad_argument(format!("`confidence_level` is {confidence_level:?}, not between 0 and 1"))
            .hint("write 0.95 for 95 %"));
    }
    if num_sequences < 2 {
        let message = format!("a bootstrap needs 2 sequences, this record has {num_sequences}");
        return Err(Error::bad_argument(message)
            .hint("extract with more sequences, 16 say: tokens of one sequence are not independent"));
    }
    let samples = n_resamples.saturating_add(num_sequences);
    if samples.saturating_mul(num_sequences) > MAX_DRAWS {
        let message = format!("{n_resamples} resamples of {num_sequences} sequences are more than {MAX_DRAWS} draws");
        return Err(Error::bad_argument(message).hint("lower `n_resamples`; of very many sequences, take a part"));
    }
    threads::pool().map_err(|e| Error::no_thread("statistics", &e))
}

/// The inputs of all tasks.
pub(super) struct Run<'a> {
    applied: &'a BoundCriterion<'a>,
    hits: &'a HitTable,
    draws: Draws,
    args: &'a BootstrapArgs,
}

/// The result of one task: feature intervals, and sums over its features.
pub(super) struct Partial {
    /// One per sample.
    sums: Vec<Sums>,
    /// The features that pass in the full sample.
    features: Vec<FeatureIntervals>,
}

/// Sums over features for one sample.
#[derive(Clone, Copy, Default)]
struct Sums {
    passing: usize,
    systematic: usize,
    /// Number of layers and of positions hit, over the features that pass in the full sample.
    layers_hit: u64,
    positions_hit: u64,
}

impl Partial {
    fn join(mut self, other: Partial) -> Partial {
        for (sum, other) in self.sums.iter_mut().zip(&other.sums) {
            sum.passing += other.passing;
            sum.systematic += other.systematic;
            sum.layers_hit += other.layers_hit;
            sum.positions_hit += other.positions_hit;
        }
        self.features.extend(other.features);
        self
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(applied: &'a BoundCriterion<'a>, hits: &'a HitTable, args: &'a BootstrapArgs) -> Self {
        let draws = Draws::new(applied.acts.num_sequences, args.n_resamples, args.seed);
        Self { applied, hits, draws, args }
    }

    /// The samples as lists of sequences.
    pub(super) fn samples(&self) -> impl Iterator<Item = &[u32]> + Clone {
        self.draws.samples()
    }

    /// The result without any feature.
    pub(super) fn nothing(&self) -> Partial {
        Partial { sums: vec![Sums::default(); self.draws.num_samples()], features: vec![] }
    }

    fn partial(&self, features: &[usize]) -> Partial {
        let mut partial = self.nothing();
        for &feature in features.iter().filter(|&&feature| can_pass(self.applied, self.hits, feature)) {
            self.add(&mut partial, feature, &outcomes(self.applied, self.hits, &self.draws, feature));
        }
        partial
    }

    /// Adds a feature with its outcome on every sample.
    pub(super) fn add(&self, partial: &mut Partial, feature: usize, outcomes: &[Outcome]) {
        let in_full_sample = outcomes[0].class != Classification::None;
        for (sum, outcome) in partial.sums.iter_mut().zip(outcomes) {
            sum.passing += usize::from(outcome.class != Classification::None);
            sum.systematic += usize::from(outcome.class == Classification::Systematic);
            if in_full_sample {
                sum.layers_hit += outcome.counts.layers_hit as u64;
                sum.positions_hit += outcome.counts.positions_hit;
            }
        }
        if in_full_sample {
            partial.features.push(self.feature_intervals(feature, outcomes));
        }
    }

    fn interval(&self, values: Vec<f64>) -> Interval {
        interval(&self.draws.replicates(values), self.args.confidence_level, self.args.method)
    }

    /// Share of the resamples whose value satisfies `predicate`.
    fn share_of_resamples<T>(&self, values: &[T], predicate: impl Fn(&T) -> bool) -> f64 {
        let resampled = self.draws.resampled(values);
        share(resampled.iter().filter(|value| predicate(value)).count() as u64, resampled.len() as u64)
    }

    fn feature_intervals(&self, feature: usize, outcomes: &[Outcome]) -> FeatureIntervals {
        let of = |statistic: fn(&Outcome) -> f64| self.interval(outcomes.iter().map(statistic).collect());
        let classification = outcomes[0].class;
        FeatureIntervals {
            feature_dim: feature,
            layer_percentage: of(|outcome| share(outcome.counts.layers_hit as u64, outcome.counts.num_layers as u64)),
            seq_percentage: of(|outcome| share(outcome.counts.positions_hit, outcome.counts.num_positions)),
            max_magnitude: of(|outcome| f64::from(outcome.magnitude)),
            passed: self.share_of_resamples(outcomes, |outcome| outcome.class != Classification::None),
            classification_held: self.share_of_resamples(outcomes, |outcome| outcome.class == classification),
            classification,
        }
    }

    pub(super) fn finish(&self, partial: Partial) -> Bootstrap {
        let Partial { sums, mut features } = partial;
        // In the order of a detection: largest magnitude first, then by feature.
        features.sort_by(|a, b| {
            b.max_magnitude.value.total_cmp(&a.max_magnitude.value).then(a.feature_dim.cmp(&b.feature_dim))
        });
        let passing = features.len() as u64;
        let class = |sum: &Sums| classify_model(sum.passing, sum.systematic);
        let classification = class(&sums[0]);
        let layers = self.hits.layers(self.applied.criterion.layer_unit);
        let num_layers = passing * layers.num_layers as u64;
        let mean_layers = sums.iter().map(|sum| share(sum.layers_hit, num_layers));
        let samples = sums.iter().zip(self.draws.samples());
        let num_positions = |sample: &[u32]| passing * self.applied.positions * sample.len() as u64;
        let mean_positions = samples.map(|(sum, sample)| share(sum.positions_hit, num_positions(sample)));
        let magnitudes = self.hits.max_magnitudes();
        let largest = |sample: &[u32]| sample.iter().fold(0.0, |largest: f32, &s| largest.max(magnitudes[s as usize]));
        Bootstrap {
            args: self.args.clone(),
            criterion: self.applied.criterion.clone(),
            num_sequences: self.applied.acts.num_sequences,
            num_features: self.interval(sums.iter().map(|sum| sum.passing as f64).collect()),
            mean_layer_percentage: (passing > 0).then(|| self.interval(mean_layers.collect())),
            mean_seq_percentage: (passing > 0).then(|| self.interval(mean_positions.collect())),
            max_magnitude: self.interval(self.draws.samples().map(|sample| f64::from(largest(sample))).collect()),
            classification,
            classification_held: self.share_of_resamples(&sums, |sum| class(sum) == classification),
            features,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::{Dense, uniform};
    use super::*;
    use crate::error::Kind;
    use crate::record::Method;

    /// 8 sequences, 3 layers, 40 features, of which some reach 6 often and some rarely.
    fn record() -> Activations {
        let mut next = uniform(11);
        let dense = Dense::drawn([3, 8, 20, 40], |[_, _, _, d]| (next() * (5.9 + d as f64 / 20.0)) as f32);
        dense.activations(&[6.0])
    }

    fn args() -> BootstrapArgs {
        BootstrapArgs { n_resamples: 500, ..BootstrapArgs::default() }
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let acts = record();
        let run = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let args = BootstrapArgs { seed, ..args() };
            pool.install(|| bootstrap(&acts, &Criterion::default(), &args)).unwrap()
        };
        let one = run(1, 0);
        assert!(one.num_features.low < one.num_features.high && one.features.len() > FEATURES_PER_TASK / 2);
        assert_eq!(one, run(1, 0));
        assert_eq!(one, run(3, 0));
        assert_eq!(one, run(8, 0));
        assert_ne!(one.features, run(1, 1).features);
    }

    #[test]
    fn features_come_in_the_order_of_the_detection() {
        let acts = record();
        let found = super::super::detect(&acts, &Criterion::default()).unwrap();
        let got = bootstrap(&acts, &Criterion::default(), &args()).unwrap();
        let found_dims: Vec<usize> = found.features.iter().map(|feature| feature.feature_dim).collect();
        let dims: Vec<usize> = got.features.iter().map(|feature| feature.feature_dim).collect();
        assert_eq!(dims, found_dims);
        assert_eq!((got.num_features.value, got.classification), (found.num_features as f64, found.classification));
        assert_eq!(got.max_magnitude.value, f64::from(found.max_magnitude));
    }

    #[test]
    fn one_systematic_feature_among_many_makes_the_model_systematic() {
        let last = 2 * FEATURES_PER_TASK;
        let dense = Dense::drawn([2, 3, 4, last + 1], |[n, _, _, d]| if n == 0 || d == last { 7.0 } else { 0.0 });
        let got = bootstrap(&dense.activations(&[6.0]), &Criterion::default(), &args()).unwrap();
        assert_eq!((got.classification, got.classification_held), (Classification::Systematic, 1.0));
        assert_eq!((got.num_features.value, got.features.len()), ((last + 1) as f64, last + 1));
        assert!(got.features.iter().all(|feature| feature.passed == 1.0 && feature.classification_held == 1.0));
    }

    #[test]
    fn a_record_without_a_hit_has_intervals_all_the_same() {
        let acts = Dense::filled(2, 3, 4, 5, 1.0).activations(&[6.0]);
        let got = bootstrap(&acts, &Criterion::default(), &args()).unwrap();
        assert_eq!((got.num_features.low, got.num_features.high), (0.0, 0.0));
        assert_eq!(got.num_features.method, Method::Percentile);
        assert_eq!((got.mean_layer_percentage, got.mean_seq_percentage), (None, None));
        assert_eq!((got.classification, got.classification_held), (Classification::None, 1.0));
        assert_eq!(got.max_magnitude.value, 1.0);
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused_with_a_hint() {
        let acts = record();
        let one_sequence = Dense::filled(1, 1, 4, 2, 7.0).activations(&[6.0]);
        let pooled = Criterion::default();
        let per_sequence = Criterion { scope: Scope::PerSequence, ..pooled.clone() };
        let resamples = |n_resamples| BootstrapArgs { n_resamples, ..args() };
        let level = |confidence_level| BootstrapArgs { confidence_level, ..args() };
        for (acts, criterion, args, word) in [
            (&acts, &per_sequence, args(), "per_sequence"),
            (&acts, &pooled, resamples(0), "n_resamples"),
            (&acts, &pooled, resamples(1_000_001), "n_resamples"),
            (&acts, &pooled, level(0.0), "confidence_level"),
            (&acts, &pooled, level(1.0), "confidence_level"),
            (&acts, &pooled, level(95.0), "confidence_level"),
            (&acts, &pooled, level(f64::NAN), "confidence_level"),
            (&one_sequence, &pooled, args(), "record has 1"),
        ] {
            let refused = bootstrap(acts, criterion, &args).expect_err("this must be refused");
            assert_eq!(refused.kind, Kind::BadArgument);
            assert!(refused.message.contains(word) && refused.hint.is_some(), "{refused:?}");
        }
    }
}
