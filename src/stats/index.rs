//! A record arranged for being asked many times: what passes at one more criterion takes microseconds.
//!
//! What a criterion asks of a feature is whether its k-th largest layer reaches the threshold, k being the fewest layers
//! that are a sufficient share, and only then at how many positions. So every feature keeps the magnitudes of its layers in
//! descending order, and features are kept in the order of their largest.
//!
//! Between two rungs the number of positions has bounds only, as in `bracket`. Where they decide every feature alike there is an
//! answer; elsewhere there is none, and no number.

use crate::error::{Error, Result};
use crate::record::{Activations, Criterion, LayerUnit, Scope};
use crate::words::counted;

use super::criterion::{Applied, check_numbers, share};

/// One feature over one group of sequences.
struct Entry {
    feature: usize,
    sequences: std::ops::Range<usize>,
    /// Largest |x| of every layer, descending; 0 where there is no value.
    layers: Vec<f32>,
}

/// Layer unit, scope and skipped positions are fixed; the three numbers of the criterion are free.
pub struct ThresholdIndex {
    base: Criterion,
    num_layers: usize,
    num_features: usize,
    /// Positions that count in one sequence.
    positions: u64,
    ladder: Vec<f32>,
    /// Largest |x| over layers, `[sequence][feature]`.
    largest: Vec<f32>,
    /// Positions at or beyond a rung in any norm, `[rung][sequence][feature]`.
    counts: Vec<u32>,
    num_sequences: usize,
    /// Descending by the largest magnitude.
    entries: Vec<Entry>,
}

impl ThresholdIndex {
    /// `layer_unit`, `scope` and `skip_positions` of `base` hold for all that is asked. Errors: as of `detect`.
    pub fn new(acts: &Activations, base: &Criterion) -> Result<Self> {
        let applied = Applied::least(acts, base)?;
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

    /// Features that pass, largest magnitude first: those that `detect` lists. Errors: a threshold that is not positive, shares
    /// outside 0 to 1; a threshold between two rungs, where what passes with the positions of the rung above does not with those of
    /// the rung below.
    pub fn passing(
        &self,
        magnitude_threshold: f32,
        min_layer_percentage: f64,
        min_seq_percentage: f64,
    ) -> Result<impl Iterator<Item = usize> + '_> {
        check_numbers(&Criterion { magnitude_threshold, min_layer_percentage, min_seq_percentage, ..self.base })?;
        let enough = |layers: &usize| share(*layers as u64, self.num_layers as u64) >= min_layer_percentage;
        // A feature without a hit never passes.
        let fewest = (1..=self.num_layers).find(enough).unwrap_or(usize::MAX);
        let rung = self.ladder.partition_point(|&rung| rung < magnitude_threshold);
        let reaches = move |entry: &&Entry| entry.layers.first().is_some_and(|&most| most >= magnitude_threshold);
        // Passes with so many positions.
        let passes = move |entry: &Entry, counted: Counted| {
            entry.layers.get(fewest - 1).is_some_and(|&kth| kth >= magnitude_threshold)
                && self.positions_share(entry, magnitude_threshold, counted) >= min_seq_percentage
        };
        if self.ladder.get(rung) != Some(&magnitude_threshold) {
            let most = rung.checked_sub(1).map_or(Counted::Anywhere, Counted::At);
            let possible = || self.entries.iter().take_while(reaches).filter(move |&entry| passes(entry, most));
            if possible().any(|entry| !passes(entry, Counted::At(rung))) {
                let certain = possible().filter(|&entry| passes(entry, Counted::At(rung))).count();
                return Err(self.undecided(magnitude_threshold, rung, (certain, possible().count())));
            }
        }
        let passing = self.entries.iter().take_while(reaches).filter(move |&entry| passes(entry, Counted::At(rung)));
        Ok(passing.map(|entry| entry.feature))
    }

    /// The share of positions of a feature, by what is `counted`; one position at least where there is a hit.
    fn positions_share(&self, entry: &Entry, threshold: f32, counted: Counted) -> f64 {
        let of = |sequence: usize| {
            let at = sequence * self.num_features + entry.feature;
            if self.largest[at] < threshold {
                return 0;
            }
            match counted {
                Counted::Anywhere => self.positions,
                Counted::At(rung) => {
                    let at = rung * self.num_sequences * self.num_features + at;
                    u64::from(self.counts.get(at).copied().unwrap_or(0).max(1))
                }
            }
        };
        share(entry.sequences.clone().map(of).sum(), self.positions * entry.sequences.len() as u64)
    }

    /// The error of a threshold before `rung` at which `certain` features pass whatever the positions are, and `possible` may.
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

/// Which positions of a feature count.
#[derive(Clone, Copy)]
enum Counted {
    /// Those at or beyond a rung.
    At(usize),
    /// All of the sequences that have a hit: the threshold is below the ladder.
    Anywhere,
}

/// For every norm the layer that it counts for.
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
