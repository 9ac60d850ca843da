//! How far a finding depends on the sequences that were drawn: intervals, and how often each class held.
//!
//! The sequences are resampled as a whole and the pooled criterion is applied to every resample. One feature at a time,
//! in parallel; what is summed over features are integers, so that the result does not depend on the threads. The means
//! over features are over those that pass in the full sample, a fixed set.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::record::{
    Activations, Bootstrap, BootstrapArgs, Classification, Criterion, FeatureIntervals, Interval, Scope,
};

use super::criterion::{Applied, Counts, classify_model, share};
use super::draws::Draws;
use super::interval;
use super::reach::{LayersHit, Reach, magnitude};

/// Beyond this a resample more changes no digit that is reported, and memory grows by about 100 bytes for each.
const MAX_RESAMPLES: usize = 1_000_000;
/// Features that one task works on, between which it sums: enough to make the summing cheap.
const FEATURES_PER_TASK: usize = 16;

/// Intervals for the findings of `detect` with the same criterion, which must be pooled.
pub fn bootstrap(acts: &Activations, criterion: &Criterion, args: &BootstrapArgs) -> Result<Bootstrap> {
    check(acts, criterion, args)?;
    let applied = Applied::new(acts, criterion)?;
    let reach = Reach::new(&applied);
    let run = Run {
        layers: reach.layers(criterion.layer_unit),
        draws: Draws::new(acts.num_sequences, args.n_resamples, args.seed),
        applied: &applied,
        reach: &reach,
        args,
    };
    let hit: Vec<usize> = reach.hit(0..acts.num_sequences).collect();
    let tasks = hit.par_chunks(FEATURES_PER_TASK).map(|features| run.part(features));
    let part = tasks.reduce_with(Part::join).unwrap_or_else(|| run.part(&[]));
    Ok(run.finish(part))
}

fn check(acts: &Activations, criterion: &Criterion, args: &BootstrapArgs) -> Result<()> {
    let BootstrapArgs {
        n_resamples,
        confidence_level,
        ..
    } = *args;
    if criterion.scope == Scope::PerSequence {
        return Err(
            Error::bad_argument("a bootstrap over sequences cannot have `scope: \"per_sequence\"`")
                .hint("use `scope: \"pooled\"`: the sequences are what is resampled"),
        );
    }
    if n_resamples == 0 || n_resamples > MAX_RESAMPLES {
        return Err(
            Error::bad_argument(format!("`n_resamples` is {n_resamples}, outside 1 to {MAX_RESAMPLES}"))
                .hint("10000 is the usual choice"),
        );
    }
    if !(confidence_level > 0.0 && confidence_level < 1.0) {
        return Err(Error::bad_argument(format!(
            "`confidence_level` is {confidence_level:?}, not between 0 and 1"
        ))
        .hint("write 0.95 for 95 %"));
    }
    if acts.num_sequences < 2 {
        return Err(Error::bad_argument(format!(
            "a bootstrap over {} sequences says nothing",
            acts.num_sequences
        ))
        .hint("extract with more sequences, 16 say: tokens of one sequence are not independent"));
    }
    Ok(())
}

/// What all tasks share.
struct Run<'a> {
    applied: &'a Applied<'a>,
    reach: &'a Reach,
    layers: &'a LayersHit,
    draws: Draws,
    args: &'a BootstrapArgs,
}

/// The findings of one task, and their sums over features.
struct Part {
    /// One per sample of the draws.
    sums: Vec<Sums>,
    /// Of the features that pass in the full sample.
    features: Vec<FeatureIntervals>,
}

/// One sample, summed over features.
#[derive(Clone, Copy, Default)]
struct Sums {
    passing: usize,
    systematic: usize,
    /// Layers and positions hit, over the features that pass in the full sample.
    layers_hit: u64,
    positions_hit: u64,
}

/// One feature on one sample.
struct Outcome {
    counts: Counts,
    magnitude: f32,
    class: Classification,
}

impl Part {
    fn join(mut self, other: Part) -> Part {
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

impl Run<'_> {
    fn part(&self, features: &[usize]) -> Part {
        let mut part = Part {
            sums: vec![Sums::default(); self.draws.num_samples()],
            features: vec![],
        };
        for &feature in features.iter().filter(|&&feature| self.can_pass(feature)) {
            let outcomes = self.outcomes(feature);
            let in_full_sample = outcomes[0].class != Classification::None;
            for (sum, outcome) in part.sums.iter_mut().zip(&outcomes) {
                sum.passing += usize::from(outcome.class != Classification::None);
                sum.systematic += usize::from(outcome.class == Classification::Systematic);
                if in_full_sample {
                    sum.layers_hit += outcome.counts.layers_hit as u64;
                    sum.positions_hit += outcome.counts.positions_hit;
                }
            }
            if in_full_sample {
                part.features.push(self.feature_intervals(feature, &outcomes));
            }
        }
        part
    }

    /// No sample has more layers than all sequences together, nor a larger share of positions than the best sequence.
    fn can_pass(&self, feature: usize) -> bool {
        let sequences = 0..self.applied.acts.num_sequences;
        let best = sequences
            .clone()
            .map(|sequence| self.reach.positions(feature, sequence))
            .max();
        let bound = Counts {
            layers_hit: self.layers.union(feature, sequences).len(),
            num_layers: self.layers.num_layers,
            positions_hit: best.unwrap_or(0).into(),
            num_positions: self.applied.positions,
        };
        self.applied.classify(&bound) != Classification::None
    }

    /// The feature on every sample. The inner loop of the program's statistics: 10,000 resamples of 16 sequences each.
    fn outcomes(&self, feature: usize) -> Vec<Outcome> {
        let sequences = 0..self.applied.acts.num_sequences;
        let words = self.layers.words;
        let bits = self.layers.cells(feature, sequences.clone());
        let positions: Vec<u32> = sequences.clone().map(|s| self.reach.positions(feature, s)).collect();
        let extremes = sequences.map(|s| self.reach.extremes(feature, s..s + 1));
        let magnitudes: Vec<f32> = extremes.map(|(max, min)| magnitude(max, min)).collect();
        let outcome = |sample: &[u32]| {
            let union = |word: usize| {
                sample
                    .iter()
                    .fold(0, |bits_hit, &s| bits_hit | bits[s as usize * words + word])
            };
            let counts = Counts {
                layers_hit: (0..words).map(|word| union(word).count_ones() as usize).sum(),
                num_layers: self.layers.num_layers,
                positions_hit: sample.iter().map(|&s| u64::from(positions[s as usize])).sum(),
                num_positions: self.num_positions(sample),
            };
            let magnitude = sample
                .iter()
                .fold(0.0, |largest: f32, &s| largest.max(magnitudes[s as usize]));
            Outcome {
                counts,
                magnitude,
                class: self.applied.classify(&counts),
            }
        };
        self.draws.samples().map(outcome).collect()
    }

    fn num_positions(&self, sample: &[u32]) -> u64 {
        self.applied.positions * sample.len() as u64
    }

    fn interval(&self, values: Vec<f64>) -> Interval {
        interval(
            &self.draws.replicates(values),
            self.args.confidence_level,
            self.args.method,
        )
    }

    /// Share of resamples whose value is such.
    fn held<T>(&self, values: &[T], such: impl Fn(&T) -> bool) -> f64 {
        let resampled = self.draws.resampled(values);
        share(
            resampled.iter().filter(|value| such(value)).count() as u64,
            resampled.len() as u64,
        )
    }

    fn feature_intervals(&self, feature: usize, outcomes: &[Outcome]) -> FeatureIntervals {
        let of = |statistic: fn(&Outcome) -> f64| self.interval(outcomes.iter().map(statistic).collect());
        let classification = outcomes[0].class;
        FeatureIntervals {
            feature_dim: feature,
            layer_percentage: of(|on| share(on.counts.layers_hit as u64, on.counts.num_layers as u64)),
            seq_percentage: of(|on| share(on.counts.positions_hit, on.counts.num_positions)),
            max_magnitude: of(|on| f64::from(on.magnitude)),
            passed: self.held(outcomes, |on| on.class != Classification::None),
            classification_held: self.held(outcomes, |on| on.class == classification),
            classification,
        }
    }

    fn finish(&self, part: Part) -> Bootstrap {
        let Part { sums, mut features } = part;
        // As in a detection: largest magnitude first, ties by feature.
        features.sort_by(|a, b| {
            b.max_magnitude
                .value
                .total_cmp(&a.max_magnitude.value)
                .then(a.feature_dim.cmp(&b.feature_dim))
        });
        let passing = features.len() as u64;
        let class = |sum: &Sums| classify_model(sum.passing, sum.systematic);
        let classification = class(&sums[0]);
        let num_layers = passing * self.layers.num_layers as u64;
        let mean_layers = sums.iter().map(|sum| share(sum.layers_hit, num_layers));
        let samples = sums.iter().zip(self.draws.samples());
        let mean_positions =
            samples.map(|(sum, sample)| share(sum.positions_hit, passing * self.num_positions(sample)));
        let magnitudes = self.reach.max_magnitudes();
        let largest = |sample: &[u32]| {
            sample
                .iter()
                .fold(0.0, |largest: f32, &s| largest.max(magnitudes[s as usize]))
        };
        Bootstrap {
            args: self.args.clone(),
            criterion: self.applied.criterion.clone(),
            num_sequences: self.applied.acts.num_sequences,
            num_features: self.interval(sums.iter().map(|sum| sum.passing as f64).collect()),
            mean_layer_percentage: (passing > 0).then(|| self.interval(mean_layers.collect())),
            mean_seq_percentage: (passing > 0).then(|| self.interval(mean_positions.collect())),
            max_magnitude: self.interval(self.draws.samples().map(|sample| f64::from(largest(sample))).collect()),
            classification,
            classification_held: self.held(&sums, |sum| class(sum) == classification),
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

    /// 8 sequences, 3 layers, 40 features of which some reach 6 often, some seldom.
    fn record() -> Activations {
        let mut next = uniform(11);
        let dense = Dense::drawn([3, 8, 20, 40], |[_, _, _, d]| (next() * (5.9 + d as f64 / 20.0)) as f32);
        dense.activations(&[6.0])
    }

    fn args() -> BootstrapArgs {
        BootstrapArgs {
            n_resamples: 500,
            ..BootstrapArgs::default()
        }
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
        let dims = |dims: Vec<usize>| dims;
        assert_eq!(
            dims(got.features.iter().map(|f| f.feature_dim).collect()),
            dims(found.features.iter().map(|f| f.feature_dim).collect())
        );
        assert_eq!(
            (got.num_features.value, got.classification),
            (found.num_features as f64, found.classification)
        );
        assert_eq!(got.max_magnitude.value, f64::from(found.max_magnitude));
    }

    #[test]
    fn a_record_without_a_hit_has_intervals_all_the_same() {
        let acts = Dense::filled(2, 3, 4, 5, 1.0).activations(&[6.0]);
        let got = bootstrap(&acts, &Criterion::default(), &args()).unwrap();
        assert_eq!((got.num_features.low, got.num_features.high), (0.0, 0.0));
        assert_eq!(got.num_features.method, Method::Percentile);
        assert_eq!((got.mean_layer_percentage, got.mean_seq_percentage), (None, None));
        assert_eq!(
            (got.classification, got.classification_held),
            (Classification::None, 1.0)
        );
        assert_eq!(got.max_magnitude.value, 1.0);
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused_with_a_hint() {
        let acts = record();
        let one_sequence = Dense::filled(1, 1, 4, 2, 7.0).activations(&[6.0]);
        let pooled = Criterion::default();
        let per_sequence = Criterion {
            scope: Scope::PerSequence,
            ..pooled.clone()
        };
        let resamples = |n_resamples| BootstrapArgs { n_resamples, ..args() };
        let level = |confidence_level| BootstrapArgs {
            confidence_level,
            ..args()
        };
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
