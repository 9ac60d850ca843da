//! Criteria that are functions of a script: which features pass is asked, where `criterion`
//! compares with two limits.
//!
//! Everything else is as with limits: hits are values at or beyond the threshold, which must be a
//! rung, a feature without a hit never passes, and the class of a passing feature follows from its
//! layer share. A feature is asked about once for each different outcome, not for each resample.
//! Errors of the function end the statistics.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::record::{
    Activations, Bootstrap, BootstrapArgs, Classification, Criterion, Detection, SequencesNeeded, SweepRow,
};

use super::bootstrap::{self, Run};
use super::criterion::{BoundCriterion, Counts, check_numbers};
use super::detect::detect_by;
use super::hit_table::HitTable;
use super::outcome::{Outcome, outcomes_on};
use super::sequences;
use super::sweep::check_number;

/// One feature over some sequences, as a function is asked about it. Layers are in the unit of the
/// criterion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub feature_dim: usize,
    pub layers_hit: usize,
    pub num_layers: usize,
    /// Number of positions with a hit in any norm.
    pub positions_hit: u64,
    pub num_positions: u64,
    /// The largest and the smallest signed value.
    pub max_value: f32,
    pub min_value: f32,
}

/// The function: whether a feature passes.
pub type Judge<'a> = dyn FnMut(&Candidate) -> Result<bool> + 'a;

/// The function with its answers about one feature.
struct Asked<'a, 'b> {
    applied: &'a BoundCriterion<'a>,
    hits: &'a HitTable,
    judge: &'a mut Judge<'b>,
    known: HashMap<(usize, u64, u64, u32, u32), bool>,
}

impl Asked<'_, '_> {
    /// The class of a feature with these counts and signed extremes.
    fn class(&mut self, feature: usize, counts: &Counts, (max, min): (f32, f32)) -> Result<Classification> {
        if counts.layers_hit == 0 {
            return Ok(Classification::None);
        }
        let Counts { layers_hit, num_layers, positions_hit, num_positions } = *counts;
        let key = (layers_hit, positions_hit, num_positions, max.to_bits(), min.to_bits());
        let passes = match self.known.get(&key) {
            Some(known) => *known,
            None => {
                let (feature_dim, max_value, min_value) = (feature, max, min);
                let passes = (self.judge)(&Candidate {
                    feature_dim,
                    layers_hit,
                    num_layers,
                    positions_hit,
                    num_positions,
                    max_value,
                    min_value,
                })?;
                self.known.insert(key, passes);
                passes
            }
        };
        Ok(if passes { self.applied.class_of_passing(counts) } else { Classification::None })
    }

    /// The feature on each of `samples`.
    fn outcomes<'s>(
        &mut self,
        samples: impl Iterator<Item = &'s [u32]> + Clone,
        feature: usize,
    ) -> Result<Vec<Outcome>> {
        self.known.clear();
        let sequences = 0..self.applied.acts.num_sequences;
        let extremes: Vec<_> = sequences.map(|s| self.hits.extremes(feature, s..s + 1)).collect();
        let over = |sample: &[u32]| {
            let all = sample.iter().map(|&sequence| extremes[sequence as usize]);
            all.fold((f32::NEG_INFINITY, f32::INFINITY), |one, other| (one.0.max(other.0), one.1.min(other.1)))
        };
        let mut outcomes = outcomes_on(self.applied, self.hits, samples.clone(), feature);
        for (outcome, sample) in outcomes.iter_mut().zip(samples) {
            outcome.class = self.class(feature, &outcome.counts, over(sample))?;
        }
        Ok(outcomes)
    }
}

/// As `detect`, with `judge` in place of the limits.
///
/// # Errors
/// Those of `judge`, and `bad_argument` for a threshold that is not a rung.
pub fn detect_where(acts: &Activations, criterion: &Criterion, judge: &mut Judge) -> Result<Detection> {
    let applied = BoundCriterion::new(acts, criterion)?;
    let hits = HitTable::new(&applied);
    let mut asked = Asked { applied: &applied, hits: &hits, judge, known: HashMap::new() };
    detect_by(&applied, &hits, &mut |_, feature, counts, extremes| {
        asked.known.clear();
        asked.class(feature, counts, extremes)
    })
}

/// As `detect`, with a list in place of the limits: those features pass that it has, of each
/// sequence where it names one. What a function has found is described again from the record so.
pub fn detect_listed(
    acts: &Activations,
    criterion: &Criterion,
    listed: &HashSet<(Option<usize>, usize)>,
) -> Result<Detection> {
    let applied = BoundCriterion::new(acts, criterion)?;
    let hits = HitTable::new(&applied);
    detect_by(&applied, &hits, &mut |sequence, feature, counts, _| {
        let passes = listed.contains(&(sequence, feature)) || listed.contains(&(None, feature));
        Ok(if passes && counts.layers_hit > 0 { applied.class_of_passing(counts) } else { Classification::None })
    })
}

/// As `bootstrap`, with `judge` in place of the limits.
///
/// # Errors
/// Those of `judge`, and as `bootstrap`.
pub fn bootstrap_where(
    acts: &Activations,
    criterion: &Criterion,
    args: &BootstrapArgs,
    judge: &mut Judge,
) -> Result<Bootstrap> {
    bootstrap::check(acts, criterion, args)?;
    let applied = BoundCriterion::new(acts, criterion)?;
    let hits = HitTable::new(&applied);
    let run = Run::new(&applied, &hits, args);
    let mut asked = Asked { applied: &applied, hits: &hits, judge, known: HashMap::new() };
    let mut all = run.nothing();
    for feature in hits.hit(0..acts.num_sequences) {
        let outcomes = asked.outcomes(run.samples(), feature)?;
        run.add(&mut all, feature, &outcomes);
    }
    Ok(run.finish(all))
}

/// As `sequences_needed`, with `judge` in place of the limits. There is no limit from which a share
/// could be separated, so `decides` and `undecided` are empty.
///
/// # Errors
/// Those of `judge`, and as `sequences_needed`.
pub fn sequences_needed_where(
    acts: &Activations,
    criterion: &Criterion,
    args: &BootstrapArgs,
    judge: &mut Judge,
) -> Result<SequencesNeeded> {
    bootstrap::check(acts, criterion, args)?;
    let applied = BoundCriterion::new(acts, criterion)?;
    let hits = HitTable::new(&applied);
    let n = acts.num_sequences;
    let samples = sequences::prefixes(n, args);
    let mut asked = Asked { applied: &applied, hits: &hits, judge, known: HashMap::new() };
    let mut sums = vec![sequences::Sums::default(); samples.len()];
    for feature in hits.hit(0..n) {
        let outcomes = asked.outcomes(samples.iter().map(Vec::as_slice), feature)?;
        sequences::add_feature(&mut sums, &outcomes, n);
    }
    Ok(sequences::needed(&sums, n, args))
}

/// As `sweep`, with `judge` in place of the limits.
///
/// # Errors
/// Those of `judge`, and as `sweep`.
pub fn sweep_where(
    acts: &Activations,
    criteria: &[Criterion],
    args: &BootstrapArgs,
    judge: &mut Judge,
) -> Result<Vec<SweepRow>> {
    check_number(criteria.len())?;
    // A mistake in the last criterion is reported before the first takes time.
    for criterion in criteria {
        bootstrap::check(acts, criterion, args)?;
        check_numbers(criterion)?;
        BoundCriterion::new(acts, criterion)?;
    }
    let row = |criterion: &Criterion| {
        let found = bootstrap_where(acts, criterion, args, judge)?;
        let systematic = |feature: &&_| is_systematic(feature);
        Ok(SweepRow {
            num_systematic: found.features.iter().filter(systematic).count(),
            criterion: found.criterion,
            num_features: found.num_features,
            classification: found.classification,
            classification_held: found.classification_held,
            mean_layer_percentage: found.mean_layer_percentage.map(|mean| mean.value),
            mean_seq_percentage: found.mean_seq_percentage.map(|mean| mean.value),
        })
    };
    criteria.iter().map(row).collect()
}

fn is_systematic(feature: &crate::record::FeatureIntervals) -> bool {
    feature.classification == Classification::Systematic
}

#[cfg(test)]
mod tests {
    use super::super::dense::{Dense, uniform};
    use super::super::{bootstrap as with_limits, detect, sequences_needed, sweep};
    use super::*;
    use crate::error::Error;
    use crate::record::{LayerUnit, Scope};

    const LADDER: [f32; 3] = [3.0, 4.5, 6.0];

    fn dense() -> Dense {
        let mut next = uniform(29);
        Dense::drawn([3, 6, 14, 16], |[n, _, _, d]| {
            ((next() - 0.3) * (3.0 + d as f64 / if n < 2 { 2.0 } else { 9.0 })) as f32
        })
    }

    fn share(part: u64, whole: u64) -> f64 {
        part as f64 / whole as f64
    }

    /// The limits of a criterion as a function.
    fn limits(criterion: &Criterion) -> impl FnMut(&Candidate) -> Result<bool> {
        let (layers, positions) = (criterion.min_layer_percentage, criterion.min_seq_percentage);
        move |candidate| {
            Ok(share(candidate.layers_hit as u64, candidate.num_layers as u64) >= layers
                && share(candidate.positions_hit, candidate.num_positions) >= positions)
        }
    }

    fn without_limits(criterion: &Criterion) -> Criterion {
        let own = Some("f".to_string());
        Criterion { min_layer_percentage: 0.0, min_seq_percentage: 0.0, own, ..criterion.clone() }
    }

    #[test]
    fn a_function_that_compares_with_the_limits_answers_as_they_do() {
        let acts = dense().activations(&LADDER);
        let args = BootstrapArgs { n_resamples: 150, ..BootstrapArgs::default() };
        for magnitude_threshold in LADDER {
            for (layer_unit, skip_positions) in [(LayerUnit::Norm, 0), (LayerUnit::Block, 1)] {
                for (min_layer_percentage, min_seq_percentage) in [(0.25, 0.06), (0.6, 0.2), (0.0, 0.5)] {
                    let limited = Criterion {
                        magnitude_threshold,
                        layer_unit,
                        skip_positions,
                        min_layer_percentage,
                        min_seq_percentage,
                        ..Criterion::default()
                    };
                    let own = without_limits(&limited);
                    let mut judge = limits(&limited);
                    let expected = Detection { criterion: own.clone(), ..detect(&acts, &limited).unwrap() };
                    assert_eq!(detect_where(&acts, &own, &mut judge).unwrap(), expected);
                    let each = Criterion { scope: Scope::PerSequence, ..limited.clone() };
                    let own_each = Criterion { scope: Scope::PerSequence, ..own.clone() };
                    let expected = Detection { criterion: own_each.clone(), ..detect(&acts, &each).unwrap() };
                    assert_eq!(detect_where(&acts, &own_each, &mut judge).unwrap(), expected);
                    let ci = with_limits(&acts, &limited, &args).unwrap();
                    let got = bootstrap_where(&acts, &own, &args, &mut judge).unwrap();
                    assert_eq!(got, Bootstrap { criterion: own.clone(), ..ci });
                    let needed = sequences_needed(&acts, &limited, &args).unwrap();
                    let got = sequences_needed_where(&acts, &own, &args, &mut judge).unwrap();
                    assert_eq!(got, SequencesNeeded { decides: None, undecided: Vec::new(), ..needed });
                    let rows = sweep(&acts, std::slice::from_ref(&limited), &args).unwrap();
                    let got = sweep_where(&acts, std::slice::from_ref(&own), &args, &mut judge).unwrap();
                    assert_eq!(got[0], SweepRow { criterion: own, ..rows[0].clone() });
                }
            }
        }
    }

    #[test]
    fn extremes_are_those_of_the_sample() {
        let dense = dense();
        let acts = dense.activations(&LADDER);
        let own = without_limits(&Criterion { magnitude_threshold: 3.0, ..Criterion::default() });
        let args = BootstrapArgs { n_resamples: 60, ..BootstrapArgs::default() };
        let got = bootstrap_where(&acts, &own, &args, &mut |c| Ok(c.max_value > 5.5 && c.min_value > -2.5)).unwrap();
        // The same by records of the resamples.
        let draws = super::super::draws::Draws::new(6, 60, 0);
        let counts: Vec<usize> = draws
            .samples()
            .map(|sample| {
                let acts = dense.resampled(sample).activations(&LADDER);
                let all = detect(&acts, &Criterion { own: None, ..own.clone() }).unwrap().features;
                all.iter().filter(|feature| feature.max_value > 5.5 && feature.min_value > -2.5).count()
            })
            .collect();
        let distribution = super::super::Replicates {
            observed: counts[0] as f64,
            jackknife: counts[1..7].iter().map(|&n| n as f64).collect(),
            resampled: counts[7..].iter().map(|&n| n as f64).collect(),
        };
        assert!(counts.iter().any(|count| *count != counts[0]));
        assert_eq!(got.num_features, super::super::interval(&distribution, 0.95, args.method));
    }

    #[test]
    fn equal_outcomes_are_asked_once_and_errors_end_it() {
        let acts = dense().activations(&LADDER);
        let own = without_limits(&Criterion { magnitude_threshold: 4.5, ..Criterion::default() });
        let args = BootstrapArgs { n_resamples: 2000, ..BootstrapArgs::default() };
        let mut asked = Vec::new();
        bootstrap_where(&acts, &own, &args, &mut |candidate| {
            assert!(!asked.contains(candidate) && candidate.layers_hit > 0);
            asked.push(*candidate);
            Ok(true)
        })
        .unwrap();
        assert!(asked.len() > 20 && asked.len() < 20_000, "{}", asked.len());
        let mut count = 0;
        let error = bootstrap_where(&acts, &own, &args, &mut |_| {
            count += 1;
            if count == 5 { Err(Error::bad_argument("no")) } else { Ok(true) }
        });
        assert_eq!((error.unwrap_err().message.as_str(), count), ("no", 5));
        let between = Criterion { magnitude_threshold: 5.0, ..own };
        assert!(detect_where(&acts, &between, &mut |_| Ok(true)).unwrap_err().message.contains("not in the ladder"));
    }
}
