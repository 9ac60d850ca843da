//! An index of a record for many queries: the features that pass one more criterion are found in
//! microseconds.
//!
//! A criterion tests whether the k-th largest layer of a feature reaches the threshold, where k is
//! the smallest number of layers with a sufficient share, and then at how many positions it does.
//! Every feature therefore has the magnitudes of its layers in descending order, and features are
//! sorted by their largest magnitude.
//!
//! Between two rungs the number of positions has only bounds, as in `bracket`. If both bounds
//! decide every feature in the same way there is an answer, otherwise an error.

use crate::error::{Error, Result};
use crate::record::{Activations, Classification, Criterion, LayerUnit, Scope};
use crate::words::counted;

use super::criterion::{BoundCriterion, check_numbers, classify_model, share};

/// One feature over one group of sequences.
struct Entry {
    feature: usize,
    sequences: std::ops::Range<usize>,
    /// Largest |x| in every layer, descending; 0 if there is no value.
    layers: Vec<f32>,
}

/// An index for fixed layer unit, scope and skipped positions. The three numbers of the criterion
/// are arguments of the query.
pub struct ThresholdIndex {
    base: Criterion,
    num_layers: usize,
    num_features: usize,
    /// Number of positions per sequence that count.
    positions: u64,
    ladder: Vec<f32>,
    /// Largest |x| over layers, `[sequence][feature]`.
    largest: Vec<f32>,
    /// Number of positions at or beyond a rung in any norm, `[rung][sequence][feature]`.
    counts: Vec<u32>,
    num_sequences: usize,
    /// Sorted by the largest magnitude, descending.
    entries: Vec<Entry>,
}

impl ThresholdIndex {
    /// Builds the index for the `layer_unit`, `scope` and `skip_positions` of `base`.
    ///
    /// # Errors
    /// As `detect`.
    pub fn new(acts: &Activations, base: &Criterion) -> Result<Self> {
        let applied = BoundCriterion::with_lower_counts(acts, base)?;
        let (num_sequences, num_features) = (acts.num_sequences, acts.hidden_size);
        let layer = layers(acts, base.layer_unit);
        let num_layers = layer.iter().max().map_or(0, |last| last + 1);
        let mut counts = vec![0; acts.ladder.len() * num_sequences * num_features];
        for (sequence, ladders) in applied.fold.any_norm.iter().enumerate() {
            for ladder in ladders.iter() {
                for rung in 0..acts.ladder.len() {
                    let at = (rung * num_sequences + sequence) * num_features + ladder.feature as usize;
                    counts[at] = ladder.at(rung);
                }
            }
        }
        // [sequence][layer][feature]
        let mut magnitudes = vec![0f32; num_sequences * num_layers * num_features];
        for (cells, layer) in applied.fold.norms.iter().zip(layer) {
            for (sequence, cell) in cells.iter().enumerate() {
                let row = (sequence * num_layers + layer) * num_features;
                let row = &mut magnitudes[row..row + num_features];
                for (most, (&max, &min)) in row.iter_mut().zip(cell.max.iter().zip(&cell.min)) {
                    let finite = |value: f32| if value.is_finite() { value } else { 0.0 };
                    *most = most.max(finite(max)).max(finite(-min));
                }
            }
        }
        let magnitude = |sequence: usize, layer: usize, feature: usize| {
            magnitudes[(sequence * num_layers + layer) * num_features + feature]
        };
        let over_layers = |sequence: usize, feature: usize| {
            (0..num_layers).map(|layer| magnitude(sequence, layer, feature)).fold(0.0, f32::max)
        };
        let groups = match base.scope {
            Scope::Pooled => std::iter::once(0..num_sequences).collect::<Vec<_>>(),
            Scope::PerSequence => (0..num_sequences).map(|one| one..one + 1).collect(),
        };
        let mut entries = Vec::with_capacity(groups.len() * num_features);
        for sequences in groups {
            for feature in 0..num_features {
                let reached =
                    |layer| sequences.clone().map(|sequence| magnitude(sequence, layer, feature)).fold(0.0, f32::max);
                let mut layers: Vec<f32> = (0..num_layers).map(reached).collect();
                layers.sort_by(|a, b| b.total_cmp(a));
                entries.push(Entry { feature, sequences: sequences.clone(), layers });
            }
        }
        entries.sort_by(|a, b| b.layers.first().unwrap_or(&0.0).total_cmp(a.layers.first().unwrap_or(&0.0)));
        Ok(Self {
            largest: (0..num_sequences)
                .flat_map(|sequence| (0..num_features).map(move |feature| (sequence, feature)))
                .map(|(sequence, feature)| over_layers(sequence, feature))
                .collect(),
            base: base.clone(),
            num_layers,
            num_features,
            positions: applied.positions,
            ladder: acts.ladder.clone(),
            counts,
            num_sequences,
            entries,
        })
    }

    /// The features that pass, largest magnitude first, as `detect` lists them.
    ///
    /// # Errors
    /// `bad_argument` for a threshold that is not positive, for shares outside 0 to 1, and for a
    /// threshold between two rungs if the counts of the rung above and of the rung below decide a
    /// feature differently.
    pub fn passing(
        &self,
        magnitude_threshold: f32,
        min_layer_percentage: f64,
        min_seq_percentage: f64,
    ) -> Result<impl Iterator<Item = usize> + '_> {
        check_numbers(&Criterion {
            magnitude_threshold,
            min_layer_percentage,
            min_seq_percentage,
            ..self.base.clone()
        })?;
        let enough = |layers: &usize| share(*layers as u64, self.num_layers as u64) >= min_layer_percentage;
        // A feature without a hit never passes.
        let min_layers = (1..=self.num_layers).find(enough).unwrap_or(usize::MAX);
        let rung = self.ladder.partition_point(|&rung| rung < magnitude_threshold);
        let reaches = move |entry: &&Entry| entry.layers.first().is_some_and(|&most| most >= magnitude_threshold);
        // True if the feature passes with this bound of the positions.
        let passes = move |entry: &Entry, counted: PositionBound| {
            entry.layers.get(min_layers - 1).is_some_and(|&kth| kth >= magnitude_threshold)
                && self.positions_share(entry, magnitude_threshold, counted) >= min_seq_percentage
        };
        if self.ladder.get(rung) != Some(&magnitude_threshold) {
            let most = rung.checked_sub(1).map_or(PositionBound::All, PositionBound::Rung);
            let possible = || self.entries.iter().take_while(reaches).filter(move |&entry| passes(entry, most));
            if possible().any(|entry| !passes(entry, PositionBound::Rung(rung))) {
                let certain = possible().filter(|&entry| passes(entry, PositionBound::Rung(rung))).count();
                return Err(self.undecided(magnitude_threshold, rung, (certain, possible().count())));
            }
        }
        let passing =
            self.entries.iter().take_while(reaches).filter(move |&entry| passes(entry, PositionBound::Rung(rung)));
        Ok(passing.map(|entry| entry.feature))
    }

    /// How many features pass, and the class of the model, as `detect` gives them. Nothing for a
    /// threshold that is not a rung. The criterion is checked, and has the layer unit, the scope
    /// and the skipped positions of this index.
    pub(super) fn class(&self, criterion: &Criterion) -> Option<(usize, Classification)> {
        let threshold = criterion.magnitude_threshold;
        let rung = self.ladder.iter().position(|&rung| rung == threshold)?;
        let (mut passing, mut systematic) = (0, 0);
        for entry in self.entries.iter().take_while(|entry| entry.layers.first().is_some_and(|&most| most >= threshold))
        {
            let reached = entry.layers.partition_point(|&most| most >= threshold);
            let layers = share(reached as u64, self.num_layers as u64);
            let passes = layers >= criterion.min_layer_percentage
                && self.positions_share(entry, threshold, PositionBound::Rung(rung)) >= criterion.min_seq_percentage;
            passing += usize::from(passes);
            systematic += usize::from(passes && layers >= criterion.systematic_layers);
        }
        Some((passing, classify_model(passing, systematic)))
    }

    /// The largest |x| of the record.
    pub(super) fn max_magnitude(&self) -> f32 {
        self.entries.first().and_then(|entry| entry.layers.first()).copied().unwrap_or(0.0)
    }

    /// The share of positions of a feature, with the bound `counted`. It is at least one position
    /// in a sequence with a hit.
    fn positions_share(&self, entry: &Entry, threshold: f32, counted: PositionBound) -> f64 {
        let of = |sequence: usize| {
            let at = sequence * self.num_features + entry.feature;
            if self.largest[at] < threshold {
                return 0;
            }
            match counted {
                PositionBound::All => self.positions,
                PositionBound::Rung(rung) => {
                    let at = rung * self.num_sequences * self.num_features + at;
                    u64::from(self.counts.get(at).copied().unwrap_or(0).max(1))
                }
            }
        };
        share(entry.sequences.clone().map(of).sum(), self.positions * entry.sequences.len() as u64)
    }

    /// The error for a threshold below `rung` at which `certain` features pass in any case and
    /// `possible` may pass.
    fn undecided(&self, threshold: f32, rung: usize, (certain, possible): (usize, usize)) -> Error {
        let below = rung.checked_sub(1).map(|below| self.ladder[below]);
        let (lies, near) = match (below, self.ladder.get(rung)) {
            (Some(below), Some(above)) => (format!("between the rungs {below:?} and {above:?}"), "one of them"),
            (Some(highest), None) => (format!("above the highest rung, {highest:?},"), "a rung"),
            (None, Some(lowest)) => (format!("below the lowest rung, {lowest:?},"), "a rung"),
            (None, None) => ("in a ladder without rungs".to_string(), "a rung"),
        };
        Error::bad_argument(format!(
            "`magnitude_threshold` {threshold:?} lies {lies} of this record: {} for certain, and {possible} may",
            if certain == 1 { "1 feature passes".to_string() } else { format!("{} pass", counted(certain, "feature")) }
        ))
        .hint(format!(
            "take {near}, or extract again with `thresholds: [{threshold:?}]`; detect_outliers gives what is certain and, in `bracket`, \
             what is possible"
        ))
    }
}

/// The bound for the number of a feature's positions.
#[derive(Clone, Copy)]
enum PositionBound {
    /// The count at a rung.
    Rung(usize),
    /// All positions of sequences with a hit, because the threshold is below the ladder.
    All,
}

/// The layer of every norm, in the unit `unit`.
fn layers(acts: &Activations, unit: LayerUnit) -> Vec<usize> {
    match unit {
        LayerUnit::Norm => (0..acts.norms.len()).collect(),
        LayerUnit::Block => {
            let mut blocks: Vec<usize> = acts.norms.iter().map(|norm| norm.layer).collect();
            blocks.sort_unstable();
            blocks.dedup();
            acts.norms.iter().map(|norm| blocks.partition_point(|&block| block < norm.layer)).collect()
        }
    }
}
