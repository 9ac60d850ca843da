//! Groups of sequences over which features are judged, and the counts of a feature over a group.

use std::ops::Range;

use super::criterion::{BoundCriterion, Counts};
use super::hit_table::HitTable;

/// The sequences of one list of features.
pub(super) struct Group {
    /// The index of the sequence, if the group is a single sequence.
    pub sequence: Option<usize>,
    pub sequences: Range<usize>,
}

/// The counts of a feature over the group.
pub(super) fn counts(applied: &BoundCriterion, hits: &HitTable, group: &Group, feature: usize) -> Counts {
    let sequences = group.sequences.clone();
    let layers = hits.layers(applied.criterion.layer_unit);
    Counts {
        layers_hit: layers.union(feature, sequences.clone()).len(),
        num_layers: layers.num_layers,
        positions_hit: sequences.clone().map(|s| u64::from(hits.positions(feature, s))).sum(),
        num_positions: applied.positions * sequences.len() as u64,
    }
}
