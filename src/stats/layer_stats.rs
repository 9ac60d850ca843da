//! Statistics per norm: the `layer_stats` of the original project's results.
//!
//! They are over all features and sequences for every scope, without position 0 if the criterion
//! skips it.

use crate::record::{LayerStats, NormFold, SiteId};

use super::criterion::{BoundCriterion, share};
use super::hit_table::{magnitude, signs_hit};

/// One entry per norm, in the order of computation.
pub(super) fn layer_stats(applied: &BoundCriterion) -> Vec<LayerStats> {
    let norms = applied.acts.norms.iter().zip(&applied.fold.norms);
    norms.map(|(&norm, cells)| one_norm(applied, norm, cells)).collect()
}

fn one_norm(applied: &BoundCriterion, norm: SiteId, cells: &[NormFold]) -> LayerStats {
    let hidden_size = applied.acts.hidden_size;
    let mut hit = vec![false; hidden_size];
    let mut max_magnitude: f32 = 0.0;
    for cell in cells {
        for (hit, (&max, &min)) in hit.iter_mut().zip(cell.max.iter().zip(&cell.min)) {
            *hit |= signs_hit(max, min, applied.criterion.magnitude_threshold) != (false, false);
            if max.is_finite() && min.is_finite() {
                max_magnitude = max_magnitude.max(magnitude(max, min));
            }
        }
    }
    let ladders = cells.iter().flat_map(|cell| cell.positive.iter().chain(cell.negative.iter()));
    let num_outliers = ladders.map(|ladder| u64::from(ladder.at(applied.rung))).sum();
    LayerStats {
        norm,
        num_outliers,
        num_features: hit.into_iter().filter(|&hit| hit).count(),
        max_magnitude,
        outlier_percentage: 100.0 * share(num_outliers, applied.num_positions() * hidden_size as u64),
    }
}
