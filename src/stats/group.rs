//! The sequences over which features are judged together, and what is counted of a feature there.

use std::ops::Range;

use super::criterion::{Applied, Counts};
use super::reach::Reach;

/// The sequences one list of features is about.
pub struct Group {
    /// Its number, when it is one sequence by itself.
    pub sequence: Option<usize>,
    pub sequences: Range<usize>,
}

/// What is known of a feature over the group.
pub fn counts(applied: &Applied, reach: &Reach, group: &Group, feature: usize) -> Counts {
    let sequences = group.sequences.clone();
    let layers = reach.layers(applied.criterion.layer_unit);
    Counts {
        layers_hit: layers.union(feature, sequences.clone()).len(),
        num_layers: layers.num_layers,
        positions_hit: sequences.clone().map(|s| u64::from(reach.positions(feature, s))).sum(),
        num_positions: applied.positions * sequences.len() as u64,
    }
}
