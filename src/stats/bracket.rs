//! Bounds for a threshold between two rungs: the features that may pass, in addition to those that
//! pass in any case.
//!
//! Layer shares are computed from the extremes and are exact. The number of positions lies between
//! the counts at the rung above and at the rung below. A feature that fails with the latter fails,
//! and one that passes with the former passes.

use crate::record::{Bracket, Classification, Feature, PossibleFeature};

use super::criterion::{BoundCriterion, classify_model, share};
use super::group::{Group, counts};
use super::hit_table::{HitTable, magnitude};

/// Computes the upper bounds. `upper` counts positions at the rung below, `hits` is the table for
/// the rung above, and `certain` are the features that pass with it.
pub(super) fn bracket(upper: &BoundCriterion, hits: &HitTable, groups: &[Group], certain: &[Feature]) -> Bracket {
    let upper_hits = HitTable::new(upper);
    let mut possible = Vec::new();
    for group in groups {
        for feature in hits.hit(group.sequences.clone()) {
            let counts = counts(upper, &upper_hits, group, feature);
            let classification = upper.classify(&counts);
            let is_certain = |f: &Feature| f.feature_dim == feature && f.sequence == group.sequence;
            if classification == Classification::None || certain.iter().any(is_certain) {
                continue;
            }
            let (max, min) = hits.extremes(feature, group.sequences.clone());
            possible.push(PossibleFeature {
                feature_dim: feature,
                sequence: group.sequence,
                layer_percentage: share(counts.layers_hit as u64, counts.num_layers as u64),
                seq_percentage: share(counts.positions_hit, counts.num_positions),
                max_magnitude: magnitude(max, min),
                classification,
            });
        }
    }
    let classes = certain.iter().map(|f| f.classification).chain(possible.iter().map(|f| f.classification));
    let systematic = classes.filter(|&class| class == Classification::Systematic).count();
    let num_features_high = certain.len() + possible.len();
    let ladder = &upper.acts.ladder;
    Bracket {
        rung_below: (!upper.below_ladder).then(|| ladder[upper.rung]),
        rung_above: ladder.get(if upper.below_ladder { upper.rung } else { upper.rung + 1 }).copied(),
        num_features_high,
        classification_high: classify_model(num_features_high, systematic),
        possible_features: possible,
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::super::detect;
    use super::*;
    use crate::record::{Answer, Criterion};

    /// Record with `values` of feature 1 in one norm, at the first of 10 positions.
    fn found(values: &[f32], threshold: f32, ladder: &[f32]) -> crate::record::Detection {
        let mut dense = Dense::filled(1, 1, 10, 2, 0.5);
        values.iter().enumerate().for_each(|(t, &value)| dense[[0, 0, t, 1]] = value);
        let criterion = Criterion { magnitude_threshold: threshold, min_seq_percentage: 0.2, ..Criterion::default() };
        detect(&dense.activations(ladder), &criterion).unwrap()
    }

    #[test]
    fn a_rung_needs_no_bracket() {
        let found = found(&[7.0, 7.0], 6.0, &[6.0, 8.0]);
        assert_eq!((found.answer, found.bracket, found.num_features), (Answer::Exact, None, 1));
    }

    #[test]
    fn between_rungs_positions_are_bounded() {
        // 1 of 10 positions reaches 8 and 2 reach 6, so that 1 or 2 of them reach 7.
        let found = found(&[9.0, -6.5], 7.0, &[6.0, 8.0]);
        assert_eq!((found.answer, found.num_features), (Answer::Bracketed, 0));
        let bracket = found.bracket.unwrap();
        assert_eq!((bracket.rung_below, bracket.rung_above), (Some(6.0), Some(8.0)));
        assert_eq!((bracket.num_features_high, bracket.possible_features[0].seq_percentage), (1, 0.2));
        assert_eq!(
            (found.classification, bracket.classification_high),
            (Classification::None, Classification::Probabilistic)
        );
    }

    #[test]
    fn what_passes_at_the_rung_above_passes() {
        let found = found(&[9.0, -9.5, 6.1], 7.0, &[6.0, 8.0]);
        let bracket = found.bracket.unwrap();
        assert_eq!((found.num_features, bracket.num_features_high, bracket.possible_features.len()), (1, 1, 0));
        assert_eq!((found.features[0].seq_positions, found.features[0].total_occurrences), (2, 2));
    }

    #[test]
    fn beyond_the_ladder_extremes_still_decide_the_layers() {
        // Above the ladder: one position is certain, more are possible.
        let above = found(&[20.0, 19.0], 15.0, &[6.0, 8.0]);
        let bracket = above.bracket.unwrap();
        assert_eq!((bracket.rung_below, bracket.rung_above), (Some(8.0), None));
        assert_eq!((above.num_features, bracket.num_features_high), (0, 1));
        // Below the ladder: all positions are possible if there is a hit at all.
        let below = found(&[5.0, 5.0], 4.0, &[6.0, 8.0]);
        let bracket = below.bracket.unwrap();
        assert_eq!((bracket.rung_below, bracket.rung_above), (None, Some(6.0)));
        assert_eq!((bracket.num_features_high, bracket.possible_features[0].seq_percentage), (1, 1.0));
        // Beyond the largest value the answer is exact, because nothing can pass.
        assert_eq!(found(&[5.0, 5.0], 5.5, &[6.0]).bracket.unwrap().num_features_high, 0);
    }
}
