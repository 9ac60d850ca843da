//! Data for figures: magnitudes by norm and feature, their distribution, and statistics of every
//! sequence.
//!
//! All are computed from the record, over all sequences unless stated otherwise, with
//! `skip_positions` as in a criterion.

use crate::error::{Error, Result};
use crate::record::{
    Activations, Criterion, Detection, Fold, HeatMap, LayerProfile, MagnitudeBin, NormFold, Scope, SequenceValues,
    field,
};

use super::criterion::{BoundCriterion, fold_of};
use super::hit_table::magnitude;
use super::{check_exact, check_record, detect};

fn fold(acts: &Activations, skip_positions: usize) -> Result<&Fold> {
    let fold = fold_of(acts, skip_positions)?;
    check_record(acts, fold)?;
    Ok(fold)
}

/// Largest |x| of a cell; 0 if it has no finite value.
fn at(cell: &NormFold, feature: usize) -> f32 {
    let finite = |value: f32, none: f32| if value.is_finite() { value } else { none };
    magnitude(finite(cell.max[feature], f32::NEG_INFINITY), finite(cell.min[feature], f32::INFINITY))
}

/// Largest |x| of every feature in one norm.
fn magnitudes(cells: &[NormFold], hidden: usize) -> Vec<f32> {
    (0..hidden).map(|feature| cells.iter().fold(0.0, |largest, cell| at(cell, feature).max(largest))).collect()
}

/// A heat map with at most `columns` columns.
pub fn heat_map(acts: &Activations, columns: usize, skip_positions: usize) -> Result<HeatMap> {
    let fold = fold(acts, skip_positions)?;
    if columns == 0 {
        return Err(Error::bad_argument("a heat map of 0 columns").hint("256 columns are legible on a page"));
    }
    let features_per_column = acts.hidden_size.div_ceil(columns);
    let row = |cells: &Vec<NormFold>| -> (Vec<f32>, Vec<u32>) {
        let values = magnitudes(cells, acts.hidden_size);
        let column = |(column, values): (usize, &[f32])| {
            let largest = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
            (values[largest], (column * features_per_column + largest) as u32)
        };
        values.chunks(features_per_column).enumerate().map(column).unzip()
    };
    let (values, feature_dims) = fold.norms.iter().map(row).unzip();
    let norms = acts.norms.iter().map(|norm| norm.name()).collect();
    Ok(HeatMap { norms, hidden_size: acts.hidden_size, features_per_column, values, feature_dims })
}

/// One profile per feature, in the order of `features`.
pub fn layer_profile(acts: &Activations, features: &[usize], skip_positions: usize) -> Result<Vec<LayerProfile>> {
    let fold = fold(acts, skip_positions)?;
    let one = |&feature: &usize| {
        if feature >= acts.hidden_size {
            return Err(Error::bad_argument(format!("feature {feature}: the model has {}", acts.hidden_size))
                .hint("features are numbered from 0"));
        }
        let largest =
            |cells: &Vec<NormFold>| cells.iter().fold(0.0, |largest: f32, cell| largest.max(at(cell, feature)));
        Ok(LayerProfile { feature_dim: feature, max_magnitude: fold.norms.iter().map(largest).collect() })
    };
    features.iter().map(one).collect()
}

/// Number of values between the rungs of the ladder, over all norms, sequences, positions and
/// features.
pub fn magnitude_histogram(acts: &Activations, skip_positions: usize) -> Result<Vec<MagnitudeBin>> {
    let fold = fold(acts, skip_positions)?;
    let rungs = acts.ladder.len();
    let (mut positive, mut negative) = (vec![0u64; rungs + 1], vec![0u64; rungs + 1]);
    for cell in fold.norms.iter().flatten() {
        for (sums, ladders) in [(&mut positive, &cell.positive), (&mut negative, &cell.negative)] {
            ladders.iter().for_each(|ladder| {
                sums.iter_mut().zip(ladder.counts).for_each(|(sum, &count)| *sum += u64::from(count));
            });
        }
    }
    let positions = (acts.sequence_length - skip_positions) * acts.num_sequences;
    let all = (positions * acts.norms.len() * acts.hidden_size) as u64;
    let not_finite: u64 = acts.non_finite.iter().map(|cell| cell.nan + cell.infinite).sum();
    let reached = positive.first().unwrap_or(&0) + negative.first().unwrap_or(&0);
    let mut bins = vec![MagnitudeBin {
        from: 0.0,
        to: acts.ladder.first().copied(),
        positive: 0,
        negative: 0,
        // The record has non-finite values per sequence, not per position, so those at position 0
        // are subtracted as well.
        count: all.saturating_sub(reached + not_finite),
    }];
    for (rung, &from) in acts.ladder.iter().enumerate() {
        let [positive, negative] = [&positive, &negative].map(|sums| sums[rung] - sums[rung + 1]);
        bins.push(MagnitudeBin {
            from,
            to: acts.ladder.get(rung + 1).copied(),
            positive,
            negative,
            count: positive + negative,
        });
    }
    Ok(bins)
}

/// Applies the criterion to every sequence separately.
pub fn per_sequence(acts: &Activations, criterion: &Criterion) -> Result<Vec<SequenceValues>> {
    let criterion = Criterion { scope: Scope::PerSequence, ..criterion.clone() };
    per_sequence_of(acts, &detect(acts, &criterion)?)
}

/// The same of what was found in every sequence by itself.
pub fn per_sequence_of(acts: &Activations, found: &Detection) -> Result<Vec<SequenceValues>> {
    let applied = BoundCriterion::with_lower_counts(acts, &found.criterion)?;
    let one = |sequence: usize| {
        let features: Vec<_> = found.features.iter().filter(|f| f.sequence == Some(sequence)).collect();
        let mean = |of: fn(&crate::record::Feature) -> f64| {
            (!features.is_empty()).then(|| features.iter().map(|f| of(f)).sum::<f64>() / features.len() as f64)
        };
        let cells = || applied.fold.norms.iter().map(move |cells| &cells[sequence]);
        let ladders = cells().flat_map(|cell| cell.positive.iter().chain(cell.negative.iter()));
        SequenceValues {
            sequence,
            num_features: features.len(),
            mean_layer_percentage: mean(|f| f.layer_percentage),
            mean_seq_percentage: mean(|f| f.seq_percentage),
            max_magnitude: cells()
                .flat_map(|cell| (0..acts.hidden_size).map(move |feature| at(cell, feature)))
                .fold(0.0, f32::max),
            total_occurrences: ladders.map(|ladder| u64::from(ladder.at(applied.rung))).sum(),
            mean_nll: acts.mean_nll.as_ref().and_then(|losses| losses.get(sequence).copied()),
        }
    };
    Ok((0..acts.num_sequences).map(one).collect())
}

/// One number of every sequence: the field `name` of what `per_sequence` gives.
///
/// # Errors
/// `bad_argument` if there is no such number, if a sequence has none, or if the threshold lies
/// between two rungs, where numbers of positions and hits have bounds only.
pub fn values_per_sequence(acts: &Activations, criterion: &Criterion, name: &str) -> Result<Vec<f64>> {
    if !VALUES.contains(&name) {
        return Err(Error::bad_argument(format!("{name:?} is no number of a sequence"))
            .hint(crate::suggest::hint(name, VALUES)));
    }
    check_exact(acts, criterion)?;
    let value = |row: &SequenceValues| {
        field(row, name).and_then(|value| value.as_f64()).ok_or_else(|| {
            Error::bad_argument(format!("sequence {} has no `{name}`", row.sequence)).hint(match name {
                "mean_nll" => "losses are measured with logits: true; one that is infinite or NaN is no number",
                _ => "means are over the passing features, and there no feature passes: take num_features, say",
            })
        })
    };
    per_sequence(acts, criterion)?.iter().map(value).collect()
}

/// The numbers of a sequence.
const VALUES: [&str; 6] =
    ["num_features", "mean_layer_percentage", "mean_seq_percentage", "max_magnitude", "total_occurrences", "mean_nll"];

/// Agreement of the norms in which the passing features have hits: the mean Jaccard index over
/// pairs of features. None for fewer than two features.
pub fn layer_agreement(found: &Detection) -> Option<f64> {
    let lists: Vec<std::collections::BTreeSet<&str>> =
        found.features.iter().map(|feature| feature.layers_affected.iter().map(String::as_str).collect()).collect();
    let (mut sum, mut pairs) = (0.0, 0u64);
    for (i, one) in lists.iter().enumerate() {
        for other in &lists[i + 1..] {
            let shared = one.intersection(other).count();
            sum += shared as f64 / (one.len() + other.len() - shared) as f64;
            pairs += 1;
        }
    }
    (pairs > 0).then(|| sum / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;

    /// Two layers, two sequences of 10 positions and 5 features, with some large values.
    fn record() -> Activations {
        let mut dense = Dense::filled(2, 2, 10, 5, 0.5);
        dense[[0, 0, 0, 4]] = -20.0; // position 0
        dense[[1, 1, 3, 4]] = 9.0;
        dense[[2, 0, 4, 1]] = 7.0;
        dense[[2, 1, 4, 0]] = -3.5;
        dense.activations(&[3.0, 6.0, 8.0])
    }

    #[test]
    fn a_heat_map_has_the_largest_of_every_column() {
        let map = heat_map(&record(), 5, 0).unwrap();
        assert_eq!((map.features_per_column, map.norms[3].as_str()), (1, "layers.1.post_attention_layernorm"));
        assert_eq!(map.values[0], [0.5, 0.5, 0.5, 0.5, 20.0]);
        assert_eq!(map.values[2], [3.5, 7.0, 0.5, 0.5, 0.5]);
        let narrow = heat_map(&record(), 2, 1).unwrap();
        assert_eq!((narrow.features_per_column, narrow.values[0].clone()), (3, vec![0.5, 0.5]));
        assert_eq!((narrow.values[2][0], narrow.feature_dims[2][0], narrow.feature_dims[1][1]), (7.0, 1, 4));
        assert!(heat_map(&record(), 0, 0).is_err() && heat_map(&record(), 5, 2).is_err());
    }

    #[test]
    fn a_profile_has_one_value_per_norm() {
        let profiles = layer_profile(&record(), &[4, 1], 0).unwrap();
        assert_eq!((profiles[0].feature_dim, &profiles[0].max_magnitude), (4, &vec![20.0, 9.0, 0.5, 0.5]));
        assert_eq!(profiles[1].max_magnitude, [0.5, 0.5, 7.0, 0.5]);
        assert!(layer_profile(&record(), &[5], 0).unwrap_err().message.contains("feature 5"));
    }

    #[test]
    fn a_histogram_counts_every_value_once() {
        let bins = magnitude_histogram(&record(), 0).unwrap();
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [396, 1, 1, 2]);
        assert_eq!(bins.iter().map(|bin| bin.negative).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!((bins[0].to, bins[3].from, bins[3].to), (Some(3.0), 8.0, None));
        let without = magnitude_histogram(&record(), 1).unwrap();
        assert_eq!(without.iter().map(|bin| bin.count).collect::<Vec<_>>(), [357, 1, 1, 1]);
    }

    #[test]
    fn every_sequence_speaks_for_itself() {
        let criterion = Criterion { min_seq_percentage: 0.1, ..Criterion::default() };
        let got = per_sequence(&record(), &criterion).unwrap();
        assert_eq!(got.iter().map(|s| s.num_features).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((got[0].max_magnitude, got[1].max_magnitude), (20.0, 9.0));
        assert_eq!((got[0].total_occurrences, got[1].total_occurrences), (2, 1));
        assert_eq!((got[0].mean_layer_percentage, got[0].mean_nll), (Some(0.25), None));
    }

    #[test]
    fn agreement_is_the_mean_share_of_common_norms() {
        let criterion = Criterion { min_seq_percentage: 0.0, ..Criterion::default() };
        // Features 4 (norms 0 and 1) and 1 (norm 2) have no norm in common.
        let found = detect(&record(), &criterion).unwrap();
        assert_eq!((found.num_features, layer_agreement(&found)), (2, Some(0.0)));
        let mut same = found.clone();
        same.features[1].layers_affected = vec![same.features[0].layers_affected[0].clone()];
        assert_eq!(layer_agreement(&same), Some(0.5));
        same.features.truncate(1);
        assert_eq!(layer_agreement(&same), None);
    }
}
