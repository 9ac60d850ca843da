//! Detection of the features that pass a criterion, with all their statistics.
//!
//! Definitions: LLM.int8(), section 4.1 and Table 4, and the original project's
//! `analyze_activations.py`, which uses `LayerUnit::Norm` and `Scope::PerSequence`. Layer shares
//! are computed from the signed extremes and are exact at any threshold. Counts of positions and
//! hits are computed from the ladders, and between two rungs there are bounds for them (`bracket`).

use std::cmp::Reverse;
use std::convert::Infallible;

use crate::error::Result;
use crate::record::{
    Activations, Answer, Classification, Criterion, Detection, Feature, LayerUnit, NonFinite, Scope, Sidedness,
};

use super::bracket::bracket;
use super::criterion::{BoundCriterion, Counts, classify_model, share};
use super::group::{Group, counts};
use super::hit_table::{HitTable, magnitude, signs_hit};
use super::layer_stats::layer_stats;
use super::signed_ladder::SignedLadder;

/// Applies `criterion` to every feature of the record.
///
/// `num_features_hit` and `num_non_finite` are over all sequences, and `num_non_finite` is over all
/// positions, for every scope and `skip_positions`. If the threshold is not a rung, `features` are
/// those that pass in any case, with lower bounds of positions and hits.
pub fn detect(acts: &Activations, criterion: &Criterion) -> Result<Detection> {
    Ok(detect_bound(&BoundCriterion::with_lower_counts(acts, criterion)?))
}

/// The same for a criterion that is bound to its record.
pub(super) fn detect_bound(applied: &BoundCriterion) -> Detection {
    let hits = HitTable::new(applied);
    match detect_by(applied, &hits, &mut |_, _, counts, _| Ok::<_, Infallible>(applied.classify(counts))) {
        Ok(found) => found,
    }
}

/// The class of a feature with these counts and signed extremes; `None` if it does not pass. The
/// first argument is the sequence, if each is taken by itself.
type Classify<'a, E> =
    dyn FnMut(Option<usize>, usize, &Counts, (f32, f32)) -> std::result::Result<Classification, E> + 'a;

/// Detection with `classify` to say which features with a hit pass.
///
/// # Errors
/// Those of `classify`.
pub(super) fn detect_by<E>(
    applied: &BoundCriterion,
    hits: &HitTable,
    classify: &mut Classify<E>,
) -> std::result::Result<Detection, E> {
    let (acts, criterion) = (applied.acts, applied.criterion);
    let everything = 0..acts.num_sequences;
    let groups: Vec<Group> = match criterion.scope {
        Scope::Pooled => vec![Group { sequence: None, sequences: everything.clone() }],
        Scope::PerSequence => {
            everything.clone().map(|one| Group { sequence: Some(one), sequences: one..one + 1 }).collect()
        }
    };
    let mut features: Vec<Feature> = Vec::new();
    for group in &groups {
        features.extend(passing(applied, hits, group, classify)?);
    }
    let systematic = features.iter().filter(|feature| feature.classification == Classification::Systematic).count();
    Ok(Detection {
        criterion: criterion.clone(),
        answer: if applied.is_exact() { Answer::Exact } else { Answer::Bracketed },
        bracket: applied.with_upper_counts().map(|upper| bracket(&upper, hits, &groups, &features)),
        classification: classify_model(features.len(), systematic),
        num_features: features.len(),
        features,
        max_magnitude: hits.max_magnitudes().into_iter().fold(0.0, f32::max),
        num_features_hit: hits.hit(everything).count(),
        num_norms: hits.layers(LayerUnit::Norm).num_layers,
        num_blocks: hits.layers(LayerUnit::Block).num_layers,
        num_positions: applied.num_positions(),
        num_non_finite: acts.non_finite.iter().map(|NonFinite { nan, infinite, .. }| nan + infinite).sum(),
        layer_stats: layer_stats(applied),
    })
}

/// The features that pass over the group, largest magnitude first.
fn passing<E>(
    applied: &BoundCriterion,
    hits: &HitTable,
    group: &Group,
    classify: &mut Classify<E>,
) -> std::result::Result<Vec<Feature>, E> {
    let mut features = Vec::new();
    for feature in hits.hit(group.sequences.clone()) {
        let counts = counts(applied, hits, group, feature);
        let class = classify(group.sequence, feature, &counts, hits.extremes(feature, group.sequences.clone()))?;
        if class != Classification::None {
            features.push(describe(applied, hits, group, feature, &counts, class));
        }
    }
    // Magnitudes of hits are positive and finite, so that their bits sort as they do.
    features.sort_by_key(|feature: &Feature| (Reverse(feature.max_magnitude.to_bits()), feature.feature_dim));
    Ok(features)
}

/// The statistics of a feature that passes over the group.
fn describe(
    applied: &BoundCriterion,
    hits: &HitTable,
    group: &Group,
    feature: usize,
    counts: &Counts,
    classification: Classification,
) -> Feature {
    let sequences = group.sequences.clone();
    let BoundCriterion { acts, criterion, fold, rung, .. } = *applied;
    let (norms, blocks) = (hits.layers(LayerUnit::Norm), hits.layers(LayerUnit::Block));
    let norms_hit = norms.union(feature, sequences.clone());
    let blocks_hit = blocks.union(feature, sequences.clone()).len();
    let (max, min) = hits.extremes(feature, sequences.clone());
    let signed = SignedLadder::new(fold, feature, sequences, acts.ladder.len());
    Feature {
        feature_dim: feature,
        sequence: group.sequence,
        layer_percentage: share(norms_hit.len() as u64, norms.num_layers as u64),
        layer_percentage_blocks: share(blocks_hit as u64, blocks.num_layers as u64),
        norms_hit: norms_hit.len(),
        blocks_hit,
        seq_percentage: share(counts.positions_hit, counts.num_positions),
        seq_positions: counts.positions_hit,
        max_magnitude: magnitude(max, min),
        max_value: max,
        min_value: min,
        sidedness: match signs_hit(max, min, criterion.magnitude_threshold) {
            (true, true) => Sidedness::TwoSided,
            (true, false) => Sidedness::Positive,
            _ => Sidedness::Negative,
        },
        // Between rungs, every norm with a hit has at least one.
        total_occurrences: signed.hits(rung).max(norms_hit.len() as u64),
        quartiles: signed.quartiles(&acts.ladder, rung, max, min),
        layers_affected: norms_hit.into_iter().map(|norm| acts.norms[norm].name()).collect(),
        classification,
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;

    const LADDER: [f32; 3] = [3.0, 6.0, 12.0];

    /// Two layers and one sequence of 50 positions. Feature 1 has `hits` values of `value` in norm
    /// 0.
    fn one_feature(hits: usize, value: f32) -> Dense {
        let mut dense = Dense::filled(2, 1, 50, 3, 0.5);
        (0..hits).for_each(|t| dense[[0, 0, t, 1]] = value);
        dense
    }

    fn found(dense: &Dense, criterion: &Criterion) -> Detection {
        detect(&dense.activations(&LADDER), criterion).unwrap()
    }

    #[test]
    fn a_feature_exactly_at_all_three_limits_passes() {
        // |x| = 6, 1 of 4 norms = 25 %, 3 of 50 positions = 6 %.
        let detection = found(&one_feature(3, -6.0), &Criterion::default());
        assert_eq!((detection.num_features, detection.classification), (1, Classification::Probabilistic));
        let feature = &detection.features[0];
        assert_eq!((feature.feature_dim, feature.sequence), (1, None));
        assert_eq!((feature.layer_percentage, feature.layer_percentage_blocks), (0.25, 0.5));
        assert_eq!((feature.seq_percentage, feature.seq_positions, feature.total_occurrences), (0.06, 3, 3));
        assert_eq!((feature.max_magnitude, feature.max_value, feature.min_value), (6.0, 0.5, -6.0));
        assert_eq!((feature.sidedness, feature.quartiles), (Sidedness::Negative, [-6.0; 3]));
        assert_eq!(feature.layers_affected, ["layers.0.input_layernorm"]);
    }

    #[test]
    fn a_feature_just_below_a_limit_does_not() {
        let below = f32::from_bits(6f32.to_bits() - 1);
        for dense in [one_feature(2, 6.0), one_feature(3, below)] {
            let detection = found(&dense, &Criterion::default());
            assert_eq!((detection.num_features, detection.classification), (0, Classification::None));
        }
        let detection =
            found(&one_feature(3, 6.0), &Criterion { min_layer_percentage: 0.2501, ..Criterion::default() });
        assert_eq!((detection.num_features, detection.num_features_hit), (0, 1));
    }

    #[test]
    fn no_features_at_all() {
        let detection = found(&Dense::filled(2, 3, 4, 5, -1.5), &Criterion::default());
        assert_eq!((detection.num_features, detection.num_features_hit), (0, 0));
        assert_eq!((detection.max_magnitude, detection.num_positions), (1.5, 12));
        assert_eq!((detection.num_norms, detection.num_blocks), (4, 2));
        assert!(detection.layer_stats.iter().all(|norm| norm.num_outliers == 0 && norm.max_magnitude == 1.5));
    }

    #[test]
    fn limits_of_zero_still_ask_for_a_hit() {
        let nothing = Criterion { min_layer_percentage: 0.0, min_seq_percentage: 0.0, ..Criterion::default() };
        assert_eq!(found(&one_feature(1, 6.0), &nothing).num_features, 1);
    }

    #[test]
    fn the_unit_chooses_the_share_that_is_judged() {
        // One norm in each of two blocks: 50 % of the norms, 100 % of the blocks.
        let mut dense = one_feature(10, 8.0);
        (0..10).for_each(|t| dense[[3, 0, t, 1]] = 8.0);
        let norms = found(&dense, &Criterion::default());
        let blocks = found(&dense, &Criterion { layer_unit: LayerUnit::Block, ..Criterion::default() });
        assert_eq!(norms.classification, Classification::Probabilistic);
        assert_eq!(blocks.classification, Classification::Systematic);
        assert_eq!(norms.features[0].layer_percentage_blocks, blocks.features[0].layer_percentage_blocks);
    }

    #[test]
    fn a_first_token_spike_is_gone_without_position_0() {
        let mut dense = Dense::filled(1, 10, 2, 2, 0.0);
        (0..10).for_each(|s| dense[[1, s, 0, 0]] = 900.0);
        let with = found(&dense, &Criterion::default());
        let without = found(&dense, &Criterion { skip_positions: 1, ..Criterion::default() });
        assert_eq!((with.num_features, with.max_magnitude, with.num_positions), (1, 900.0, 20));
        assert_eq!((without.num_features, without.max_magnitude, without.num_positions), (0, 0.0, 10));
    }

    #[test]
    fn non_finite_values_are_counted_and_are_no_hits() {
        let mut dense = Dense::filled(1, 2, 3, 2, 1.0);
        dense[[0, 0, 1, 0]] = f32::NAN;
        dense[[1, 1, 2, 0]] = f32::NEG_INFINITY;
        (0..3).for_each(|t| dense[[0, 1, t, 1]] = f32::NAN);
        let detection = found(&dense, &Criterion::default());
        assert_eq!((detection.num_non_finite, detection.num_features_hit), (5, 0));
        assert_eq!(detection.max_magnitude, 1.0);
    }

    #[test]
    fn a_record_of_some_norms_counts_those_only() {
        // A record of layers 3 and 10, without the second norm of layer 3.
        let mut dense = one_feature(3, 6.0);
        dense[[2, 0, 0, 1]] = 6.0;
        let mut acts = dense.activations(&LADDER);
        acts.norms.iter_mut().for_each(|norm| norm.layer = 7 * norm.layer + 3);
        acts.norms.remove(1);
        acts.all.norms.remove(1);
        acts.num_layers = 11;
        let detection = detect(&acts, &Criterion::default()).unwrap();
        assert_eq!((detection.num_norms, detection.num_blocks), (3, 2));
        let feature = &detection.features[0];
        assert_eq!((feature.layer_percentage, feature.layer_percentage_blocks), (2.0 / 3.0, 1.0));
        assert_eq!(feature.layers_affected, ["layers.3.input_layernorm", "layers.10.input_layernorm"]);
    }
}
