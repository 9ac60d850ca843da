//! Many criteria with a bootstrap for each, computed together.
//!
//! Criteria that differ only in their limits share the counts of layers and positions on every
//! resample. A share is monotone in its count, so that a limit becomes the smallest count that
//! meets it, and a criterion costs two comparisons per feature and resample. All sums are integers,
//! so that the result does not depend on the number of threads.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::progress::interrupt_requested;
use crate::record::{Activations, BootstrapArgs, Classification, Criterion, SweepRow};

use super::criterion::{BoundCriterion, Counts, check_numbers, classify_model, share};
use super::draws::Draws;
use super::hit_table::HitTable;
use super::interval;
use super::outcome::{can_pass, outcomes};

/// Number of features per task.
const FEATURES_PER_TASK: usize = 32;
/// The largest number of criteria. Each takes 8 bytes per resample and thread.
pub const MAX_CRITERIA: usize = 100_000;
/// The largest number of criteria times samples that are counted at the same time. Each takes 8
/// bytes, several times.
const AT_ONCE: usize = 1 << 22;

/// Rejects a sweep over nothing, and over more criteria than its memory allows.
pub(super) fn check_number(criteria: usize) -> Result<()> {
    match criteria {
        0 => Err(Error::bad_argument("a sweep over 0 criteria: a list of values is empty")
            .hint("give one value or more for each option, or leave it out")),
        1..=MAX_CRITERIA => Ok(()),
        _ => Err(Error::bad_argument(format!("a sweep over {criteria} criteria"))
            .hint(format!("from 1 to {MAX_CRITERIA}: every combination of the values given is one"))),
    }
}

/// One row per criterion, in their order. All criteria must be pooled and have rungs as thresholds.
pub fn sweep(acts: &Activations, criteria: &[Criterion], args: &BootstrapArgs) -> Result<Vec<SweepRow>> {
    check_number(criteria.len())?;
    for criterion in criteria {
        super::bootstrap::check(acts, criterion, args)?;
        check_numbers(criterion)?;
    }
    let draws = Draws::new(acts.num_sequences, args.n_resamples, args.seed);
    let mut rows: Vec<Option<SweepRow>> = criteria.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..criteria.len()).collect();
    while let Some(&first) = left.first() {
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        let like = &criteria[first];
        let same = |i: &usize| {
            let other = &criteria[*i];
            (other.magnitude_threshold, other.layer_unit, other.skip_positions)
                == (like.magnitude_threshold, like.layer_unit, like.skip_positions)
        };
        let (group, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|i| same(i));
        left = rest;
        for group in group.chunks((AT_ONCE / draws.num_samples()).max(1)) {
            if interrupt_requested() {
                return Err(Error::interrupted());
            }
            let asked: Vec<&Criterion> = group.iter().map(|&i| &criteria[i]).collect();
            for (&i, row) in group.iter().zip(one_group(acts, &asked, &draws, args)?) {
                rows[i] = Some(row);
            }
        }
    }
    Ok(rows.into_iter().flatten().collect())
}

/// The smallest counts that meet the limits of a criterion.
struct Limits {
    layers: usize,
    systematic: usize,
    /// For samples of all sequences, and for samples with one left out.
    positions: [u64; 2],
}

/// The smallest count of `whole` whose share meets `limit`, or `whole + 1` if there is none.
fn min_count(limit: f64, whole: u64) -> u64 {
    let (mut low, mut high) = (0, whole + 1);
    while low < high {
        let middle = (low + high) / 2;
        if share(middle, whole) >= limit { high = middle } else { low = middle + 1 }
    }
    low
}

impl Limits {
    fn new(criterion: &Criterion, num_layers: usize, positions: u64, sequences: usize) -> Self {
        let layers = |limit| min_count(limit, num_layers as u64).max(1) as usize;
        let whole = [sequences, sequences - 1].map(|sequences| positions * sequences as u64);
        Self {
            layers: layers(criterion.min_layer_percentage),
            systematic: layers(criterion.systematic_layers),
            positions: whole.map(|whole| min_count(criterion.min_seq_percentage, whole)),
        }
    }

    fn class(&self, counts: &Counts, one_left_out: bool) -> Classification {
        let passes =
            counts.layers_hit >= self.layers && counts.positions_hit >= self.positions[usize::from(one_left_out)];
        match passes {
            false => Classification::None,
            true if counts.layers_hit >= self.systematic => Classification::Systematic,
            true => Classification::Probabilistic,
        }
    }
}

/// For one criterion: passing and systematic features per sample, and the shares of the full
/// sample.
#[derive(Clone)]
struct Sums {
    passing: Vec<u32>,
    systematic: Vec<u32>,
    layers_hit: u64,
    positions_hit: u64,
}

fn one_group(acts: &Activations, asked: &[&Criterion], draws: &Draws, args: &BootstrapArgs) -> Result<Vec<SweepRow>> {
    // The counts are the same for all limits. A feature that fails the loosest limits fails all of
    // them.
    let loosest = |limit: fn(&Criterion) -> f64| asked.iter().map(|criterion| limit(criterion)).fold(1.0, f64::min);
    let loosest = Criterion {
        min_layer_percentage: loosest(|criterion| criterion.min_layer_percentage),
        min_seq_percentage: loosest(|criterion| criterion.min_seq_percentage),
        ..asked[0].clone()
    };
    let applied = BoundCriterion::new(acts, &loosest)?;
    let hits = HitTable::new(&applied);
    let sequences = acts.num_sequences;
    let num_layers = hits.layers(applied.criterion.layer_unit).num_layers;
    let limits: Vec<Limits> =
        asked.iter().map(|criterion| Limits::new(criterion, num_layers, applied.positions, sequences)).collect();
    let samples = draws.num_samples();
    let empty = || {
        let none = Sums { passing: vec![0; samples], systematic: vec![0; samples], layers_hit: 0, positions_hit: 0 };
        vec![none; asked.len()]
    };
    let hit: Vec<usize> = hits.hit(0..sequences).filter(|&feature| can_pass(&applied, &hits, feature)).collect();
    let part = |mut sums: Vec<Sums>, features: &[usize]| {
        for &feature in features {
            let outcomes = outcomes(&applied, &hits, draws, feature);
            let most = |of: fn(&Counts) -> u64| outcomes.iter().map(|outcome| of(&outcome.counts)).max().unwrap_or(0);
            let (layers, positions) = (most(|c| c.layers_hit as u64), most(|c| c.positions_hit));
            for (sums, limits) in sums.iter_mut().zip(&limits) {
                if layers < limits.layers as u64 || positions < limits.positions[0].min(limits.positions[1]) {
                    continue;
                }
                for (sample, outcome) in outcomes.iter().enumerate() {
                    let class = limits.class(&outcome.counts, (1..=sequences).contains(&sample));
                    sums.passing[sample] += u32::from(class != Classification::None);
                    sums.systematic[sample] += u32::from(class == Classification::Systematic);
                    if sample == 0 && class != Classification::None {
                        sums.layers_hit += outcome.counts.layers_hit as u64;
                        sums.positions_hit += outcome.counts.positions_hit;
                    }
                }
            }
        }
        sums
    };
    let join = |mut one: Vec<Sums>, other: Vec<Sums>| {
        for (one, other) in one.iter_mut().zip(other) {
            one.passing.iter_mut().zip(other.passing).for_each(|(sum, n)| *sum += n);
            one.systematic.iter_mut().zip(other.systematic).for_each(|(sum, n)| *sum += n);
            one.layers_hit += other.layers_hit;
            one.positions_hit += other.positions_hit;
        }
        one
    };
    let sums = hit.par_chunks(FEATURES_PER_TASK).fold(empty, part).reduce(empty, join);
    let row = |(criterion, sums): (&&Criterion, Sums)| {
        let classes: Vec<Classification> = sums
            .passing
            .iter()
            .zip(&sums.systematic)
            .map(|(&passing, &systematic)| classify_model(passing as usize, systematic as usize))
            .collect();
        let resampled = draws.resampled(&classes);
        let held = resampled.iter().filter(|&&class| class == classes[0]).count();
        let counts = draws.replicates(sums.passing.iter().map(|&n| f64::from(n)).collect());
        let passing = u64::from(sums.passing[0]);
        let mean = |sum: u64, whole: u64| (passing > 0).then(|| share(sum, passing * whole));
        SweepRow {
            criterion: (*criterion).clone(),
            num_features: interval(&counts, args.confidence_level, args.method),
            num_systematic: sums.systematic[0] as usize,
            classification: classes[0],
            classification_held: share(held as u64, resampled.len() as u64),
            mean_layer_percentage: mean(sums.layers_hit, num_layers as u64),
            mean_seq_percentage: mean(sums.positions_hit, applied.num_positions()),
        }
    };
    Ok(asked.iter().zip(sums).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::super::dense::{Dense, uniform};
    use super::super::{bootstrap, detect};
    use super::*;
    use crate::record::{LayerUnit, Scope};

    const LADDER: [f32; 4] = [3.0, 4.5, 6.0, 8.0];

    fn record() -> Activations {
        let mut next = uniform(3);
        // Large values in the first norm, smaller ones in the others.
        let hits = |n: usize, d: usize| 2.5 + d as f64 / if n == 0 { 2.5 } else { 8.0 };
        Dense::drawn([3, 6, 12, 20], |[n, _, _, d]| (next() * hits(n, d)) as f32).activations(&LADDER)
    }

    fn criteria() -> Vec<Criterion> {
        let mut criteria = Vec::new();
        for magnitude_threshold in LADDER {
            for min_layer_percentage in [0.0, 0.25, 0.9] {
                for min_seq_percentage in [0.0, 0.06, 0.5] {
                    for (layer_unit, skip_positions) in [(LayerUnit::Norm, 0), (LayerUnit::Block, 1)] {
                        criteria.push(Criterion {
                            magnitude_threshold,
                            min_layer_percentage,
                            min_seq_percentage,
                            layer_unit,
                            skip_positions,
                            ..Criterion::default()
                        });
                    }
                }
            }
        }
        criteria
    }

    #[test]
    fn every_row_is_what_detection_and_bootstrap_say() {
        let acts = record();
        let args = BootstrapArgs { n_resamples: 200, ..BootstrapArgs::default() };
        let rows = sweep(&acts, &criteria(), &args).unwrap();
        assert_eq!(rows.len(), 72);
        let mut classes = std::collections::BTreeSet::new();
        for (row, criterion) in rows.iter().zip(criteria()) {
            assert_eq!(row.criterion, criterion);
            let found = detect(&acts, &criterion).unwrap();
            let ci = bootstrap(&acts, &criterion, &args).unwrap();
            assert_eq!((row.classification, row.num_features.value), (found.classification, found.num_features as f64));
            assert_eq!((&row.num_features, row.classification_held), (&ci.num_features, ci.classification_held));
            assert_eq!(row.mean_layer_percentage, ci.mean_layer_percentage.map(|i| i.value));
            assert_eq!(row.mean_seq_percentage, ci.mean_seq_percentage.map(|i| i.value));
            let systematic = found.features.iter().filter(|f| f.classification == Classification::Systematic).count();
            assert_eq!(row.num_systematic, systematic);
            classes.insert(row.classification.name());
        }
        assert_eq!(classes.len(), 3, "the criteria are too much alike: {classes:?}");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let (acts, args) = (record(), BootstrapArgs::default());
        let off = Criterion { magnitude_threshold: 7.0, ..Criterion::default() };
        assert!(sweep(&acts, &[off], &args).unwrap_err().message.contains("not in the ladder"));
        let per_sequence = Criterion { scope: Scope::PerSequence, ..Criterion::default() };
        assert!(sweep(&acts, &[per_sequence], &args).unwrap_err().message.contains("per_sequence"));
        assert!(sweep(&acts, &[], &args).is_err());
    }

    #[test]
    fn limits_are_the_smallest_counts_that_meet_them() {
        for (limit, whole, want) in [(0.25, 96, 24), (0.06, 100, 6), (0.0, 10, 0), (1.0, 7, 7), (0.9, 96, 87)] {
            assert_eq!(min_count(limit, whole), want);
            assert!(share(want, whole) >= limit && (want == 0 || share(want - 1, whole) < limit));
        }
    }
}
