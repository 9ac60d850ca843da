//! The result for one feature on every sample of a bootstrap: layers and positions hit, magnitude
//! and class.
//!
//! This is the inner loop of the statistics: 500 features on 10,000 resamples of 16 sequences are
//! 80 million cells to combine. Layers are therefore bit sets, and the data of one feature is
//! contiguous in memory.

use crate::record::Classification;

use super::criterion::{BoundCriterion, Counts};
use super::draws::Draws;
use super::hit_table::{HitTable, magnitude};

/// One feature on one sample.
pub(super) struct Outcome {
    pub counts: Counts,
    pub magnitude: f32,
    /// `None` if it does not pass.
    pub class: Classification,
}

/// True if the feature may pass on some sample. No sample has more layers than all sequences
/// together, nor a larger share of positions than the best sequence.
pub(super) fn can_pass(applied: &BoundCriterion, hits: &HitTable, feature: usize) -> bool {
    let sequences = 0..applied.acts.num_sequences;
    let best = sequences.clone().map(|sequence| hits.positions(feature, sequence)).max();
    let layers = hits.layers(applied.criterion.layer_unit);
    let bound = Counts {
        layers_hit: layers.union(feature, sequences).len(),
        num_layers: layers.num_layers,
        positions_hit: best.unwrap_or(0).into(),
        num_positions: applied.positions,
    };
    applied.classify(&bound) != Classification::None
}

/// The feature on every sample, in the order of `draws`.
pub(super) fn outcomes(applied: &BoundCriterion, hits: &HitTable, draws: &Draws, feature: usize) -> Vec<Outcome> {
    outcomes_on(applied, hits, draws.samples(), feature)
}

/// The feature on each of `samples`, which are lists of sequence indices.
pub(super) fn outcomes_on<'a>(
    applied: &BoundCriterion,
    hits: &HitTable,
    samples: impl Iterator<Item = &'a [u32]>,
    feature: usize,
) -> Vec<Outcome> {
    let sequences = 0..applied.acts.num_sequences;
    let layers = hits.layers(applied.criterion.layer_unit);
    let words = layers.words;
    let bits = layers.cells(feature, sequences.clone()); // [sequence][word]
    let positions: Vec<u32> = sequences.clone().map(|sequence| hits.positions(feature, sequence)).collect();
    let extremes = sequences.map(|sequence| hits.extremes(feature, sequence..sequence + 1));
    let magnitudes: Vec<f32> = extremes.map(|(max, min)| magnitude(max, min)).collect();
    let outcome = |sample: &[u32]| {
        let union = |word: usize| sample.iter().fold(0, |hit, &sequence| hit | bits[sequence as usize * words + word]);
        let counts = Counts {
            layers_hit: (0..words).map(|word| union(word).count_ones() as usize).sum(),
            num_layers: layers.num_layers,
            positions_hit: sample.iter().map(|&sequence| u64::from(positions[sequence as usize])).sum(),
            num_positions: applied.positions * sample.len() as u64,
        };
        let reached = sample.iter().map(|&sequence| magnitudes[sequence as usize]);
        Outcome { counts, magnitude: reached.fold(0.0, f32::max), class: applied.classify(&counts) }
    };
    samples.map(outcome).collect()
}
