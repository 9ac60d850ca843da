//! The hit table: for every feature and sequence, the layers with a hit, the number of positions
//! with a hit, and the extremes.
//!
//! It is built in one pass over the dense part of a record. Detection and bootstrap only combine
//! its rows over sequences. Extremes that are not finite mean that the cell has no finite value.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::record::{LayerUnit, NormFold};

use super::criterion::BoundCriterion;

const WORD: usize = u64::BITS as usize;

/// Bit sets of the layers with a hit, in one of the two units.
pub(super) struct LayersHit {
    pub num_layers: usize,
    /// Number of words in a bit set.
    pub words: usize,
    num_sequences: usize,
    /// `[feature][sequence][word]`
    bits: Vec<u64>,
}

pub(super) struct HitTable {
    num_sequences: usize,
    num_features: usize,
    norms: LayersHit,
    blocks: LayersHit,
    /// Number of positions with a hit in any norm, `[sequence][feature]`.
    positions: Vec<u32>,
    /// Signed extremes over norms, `[sequence][feature]`; -inf and +inf if there is no value.
    max: Vec<f32>,
    min: Vec<f32>,
}

impl LayersHit {
    fn new(num_layers: usize, num_sequences: usize, num_features: usize) -> Self {
        let words = num_layers.div_ceil(WORD);
        Self { num_layers, words, num_sequences, bits: vec![0; num_features * num_sequences * words] }
    }

    fn set(&mut self, feature: usize, sequence: usize, layer: usize) {
        let cell = (feature * self.num_sequences + sequence) * self.words;
        self.bits[cell + layer / WORD] |= 1 << (layer % WORD);
    }

    /// The bit sets of `feature` in `sequences`, `[sequence][word]`.
    pub(super) fn cells(&self, feature: usize, sequences: Range<usize>) -> &[u64] {
        let row = feature * self.num_sequences;
        &self.bits[(row + sequences.start) * self.words..(row + sequences.end) * self.words]
    }

    /// The layers with a hit in any of `sequences`, ascending.
    pub(super) fn union(&self, feature: usize, sequences: Range<usize>) -> Vec<usize> {
        let cells = self.cells(feature, sequences);
        let hit = |layer: &usize| {
            let mut words = cells.iter().skip(layer / WORD).step_by(self.words);
            words.any(|word| word >> (layer % WORD) & 1 == 1)
        };
        (0..self.num_layers).filter(hit).collect()
    }
}

impl HitTable {
    pub(super) fn new(applied: &BoundCriterion) -> Self {
        let acts = applied.acts;
        let (num_sequences, num_features) = (acts.num_sequences, acts.hidden_size);
        let blocks = blocks(applied);
        let num_blocks = blocks.iter().max().map_or(0, |last| last + 1);
        let mut hits = Self {
            num_sequences,
            num_features,
            norms: LayersHit::new(acts.norms.len(), num_sequences, num_features),
            blocks: LayersHit::new(num_blocks, num_sequences, num_features),
            positions: vec![0; num_sequences * num_features],
            max: vec![f32::NEG_INFINITY; num_sequences * num_features],
            min: vec![f32::INFINITY; num_sequences * num_features],
        };
        for (norm, (cells, &block)) in applied.fold.norms.iter().zip(&blocks).enumerate() {
            for (sequence, cell) in cells.iter().enumerate() {
                hits.add(cell, sequence, norm, block, applied.criterion.magnitude_threshold);
            }
        }
        for (sequence, ladders) in applied.fold.any_norm.iter().enumerate() {
            for ladder in ladders.iter() {
                hits.positions[sequence * num_features + ladder.feature as usize] = ladder.at(applied.rung);
            }
        }
        hits.bound_positions(applied);
        hits
    }

    /// Bounds the numbers of positions by the extremes, which show whether there is a hit at all.
    /// At a rung this changes nothing. Between two rungs the counts are those of another threshold.
    fn bound_positions(&mut self, applied: &BoundCriterion) {
        for sequence in 0..self.num_sequences {
            for feature in 0..self.num_features {
                let hit = self.norms.cells(feature, sequence..sequence + 1).iter().any(|&word| word != 0);
                let positions = &mut self.positions[sequence * self.num_features + feature];
                *positions = match hit {
                    false => 0,
                    true if applied.below_ladder => applied.positions as u32,
                    true => (*positions).max(1),
                };
            }
        }
    }

    fn add(&mut self, cell: &NormFold, sequence: usize, norm: usize, block: usize, threshold: f32) {
        for (feature, (&max, &min)) in cell.max.iter().zip(&cell.min).enumerate() {
            let at = sequence * self.num_features + feature;
            if max.is_finite() {
                self.max[at] = self.max[at].max(max);
            }
            if min.is_finite() {
                self.min[at] = self.min[at].min(min);
            }
            if signs_hit(max, min, threshold) != (false, false) {
                self.norms.set(feature, sequence, norm);
                self.blocks.set(feature, sequence, block);
            }
        }
    }

    pub(super) fn layers(&self, unit: LayerUnit) -> &LayersHit {
        match unit {
            LayerUnit::Norm => &self.norms,
            LayerUnit::Block => &self.blocks,
        }
    }

    /// The features with a hit in any of `sequences`, ascending.
    pub(super) fn hit(&self, sequences: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let any = move |feature: &usize| self.norms.cells(*feature, sequences.clone()).iter().any(|&word| word != 0);
        (0..self.num_features).filter(any)
    }

    pub(super) fn positions(&self, feature: usize, sequence: usize) -> u32 {
        self.positions[sequence * self.num_features + feature]
    }

    /// The largest and the smallest signed value of `feature` over norms and `sequences`.
    pub(super) fn extremes(&self, feature: usize, sequences: Range<usize>) -> (f32, f32) {
        sequences
            .map(|sequence| sequence * self.num_features + feature)
            .fold((f32::NEG_INFINITY, f32::INFINITY), |(max, min), at| (max.max(self.max[at]), min.min(self.min[at])))
    }

    /// Largest |x| of every sequence over norms and features.
    pub(super) fn max_magnitudes(&self) -> Vec<f32> {
        let features = |sequence| sequence * self.num_features..(sequence + 1) * self.num_features;
        let largest =
            |sequence| features(sequence).fold(0.0, |m: f32, at| m.max(magnitude(self.max[at], self.min[at])));
        (0..self.num_sequences).map(largest).collect()
    }
}

/// Largest |x| between these signed extremes; 0 if there is no value (-inf, +inf).
pub(super) fn magnitude(max: f32, min: f32) -> f32 {
    max.max(-min).max(0.0)
}

/// Whether the extremes of a cell show a positive hit, and whether they show a negative one.
pub(super) fn signs_hit(max: f32, min: f32, threshold: f32) -> (bool, bool) {
    (max.is_finite() && max >= threshold, min.is_finite() && min <= -threshold)
}

/// For every norm, the index of its decoder layer among the layers of the record.
fn blocks(applied: &BoundCriterion) -> Vec<usize> {
    let norms = &applied.acts.norms;
    let mut index: BTreeMap<usize, usize> = norms.iter().map(|norm| (norm.layer, 0)).collect();
    index.values_mut().enumerate().for_each(|(rank, block)| *block = rank);
    norms.iter().map(|norm| index[&norm.layer]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;
    use crate::record::Criterion;

    #[test]
    fn joins_norms_into_blocks_and_sequences_into_unions() {
        let mut dense = Dense::filled(40, 2, 3, 2, 1.0);
        dense[[0, 0, 0, 1]] = 6.0; // layer 0, both norms
        dense[[1, 0, 0, 1]] = -7.0;
        dense[[79, 1, 2, 1]] = 9.0; // layer 39, in the second word of the norms
        let acts = dense.activations(&[6.0]);
        let criterion = Criterion::default();
        let hits = HitTable::new(&BoundCriterion::new(&acts, &criterion).unwrap());
        assert_eq!(hits.layers(LayerUnit::Norm).words, 2);
        assert_eq!(hits.layers(LayerUnit::Norm).union(1, 0..2), [0, 1, 79]);
        assert_eq!(hits.layers(LayerUnit::Norm).union(1, 1..2), [79]);
        assert_eq!(hits.layers(LayerUnit::Block).union(1, 0..2), [0, 39]);
        assert_eq!(hits.hit(0..2).collect::<Vec<_>>(), [1]);
        assert_eq!((hits.positions(1, 0), hits.positions(1, 1), hits.positions(0, 0)), (1, 1, 0));
        assert_eq!(hits.extremes(1, 0..2), (9.0, -7.0));
        assert_eq!(hits.max_magnitudes(), [7.0, 9.0]);
    }

    #[test]
    fn cells_without_a_finite_value_count_as_nothing() {
        assert_eq!(magnitude(f32::NEG_INFINITY, f32::INFINITY), 0.0);
        assert_eq!((magnitude(-2.0, -5.0), magnitude(5.0, 2.0)), (5.0, 5.0));
        assert_eq!(signs_hit(f32::NEG_INFINITY, f32::INFINITY, 6.0), (false, false));
        assert_eq!(signs_hit(f32::INFINITY, f32::NEG_INFINITY, 6.0), (false, false));
        assert_eq!((signs_hit(6.0, -5.9, 6.0), signs_hit(5.9, -6.0, 6.0)), ((true, false), (false, true)));
    }
}
