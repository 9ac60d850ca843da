//! A criterion bound to a record: checks that it is valid and that the record can answer it, and
//! applies it to counts.
//!
//! The criterion is that of LLM.int8(), section 4.1 (Dettmers et al. 2022). Every share in a result
//! is computed by `share`, and comparisons use the reported value and are inclusive. No feature
//! passes with a printed share below the limit.

use crate::error::{Error, Result};
use crate::record::{Activations, Classification, Criterion, Fold};
use crate::words::counted;

use super::check_record;

/// The largest number of rungs that an error message lists. Of a longer ladder it gives the ends
/// and the nearest rungs.
const RUNGS_LISTED: usize = 16;

/// A valid criterion with a checked record and the statistics to use.
pub(super) struct BoundCriterion<'a> {
    pub acts: &'a Activations,
    pub criterion: &'a Criterion,
    /// The statistics over the positions that the criterion uses.
    pub fold: &'a Fold,
    /// The rung whose counts are used for the threshold. Beyond the last rung counts are 0.
    pub rung: usize,
    /// True if the threshold is below the ladder, so that any position may have a hit.
    pub below_ladder: bool,
    /// Number of positions per sequence that the criterion uses.
    pub positions: u64,
}

/// Counts of a feature over some sequences. Layers are in the unit of the criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub layers_hit: usize,
    pub num_layers: usize,
    pub positions_hit: u64,
    pub num_positions: u64,
}

impl<'a> BoundCriterion<'a> {
    /// Binds a criterion whose threshold is a rung of the record's ladder.
    ///
    /// # Errors
    /// `bad_argument` if it is not.
    pub(super) fn new(acts: &'a Activations, criterion: &'a Criterion) -> Result<Self> {
        let applied = Self::with_lower_counts(acts, criterion)?;
        match applied.is_exact() {
            true => Ok(applied),
            false => Err(no_rung(acts, criterion)),
        }
    }

    /// True if the threshold is a rung, so that every count is exact.
    pub(super) fn is_exact(&self) -> bool {
        self.acts.rung(self.criterion.magnitude_threshold).is_some()
    }

    /// Binds a criterion with any threshold. If it is not a rung, the counts of positions and hits
    /// are those of the rung above, which are lower bounds.
    pub(super) fn with_lower_counts(acts: &'a Activations, criterion: &'a Criterion) -> Result<Self> {
        check_numbers(criterion)?;
        let skip = criterion.skip_positions;
        let fold = fold_of(acts, skip)?;
        check_record(acts, fold)?;
        let positions = acts.sequence_length.saturating_sub(skip) as u64;
        if acts.num_sequences == 0 || positions == 0 {
            return Err(Error::bad_argument(format!(
                "no positions to count: {} of {}, `skip_positions` {skip}",
                counted(acts.num_sequences, "sequence"),
                counted(acts.sequence_length, "token")
            ))
            .hint("extract again with more or longer sequences"));
        }
        Ok(Self::of_checked(acts, criterion))
    }

    /// Binds a criterion that was checked with this record.
    pub(super) fn of_checked(acts: &'a Activations, criterion: &'a Criterion) -> Self {
        let fold = acts.fold(criterion.skip_positions).unwrap_or(&acts.all);
        let positions = acts.sequence_length.saturating_sub(criterion.skip_positions) as u64;
        let rung = acts.rung_at_or_above(criterion.magnitude_threshold);
        Self { acts, criterion, fold, rung, below_ladder: false, positions }
    }

    /// The same with the counts of the rung below, which are upper bounds. None if the threshold is
    /// a rung.
    pub(super) fn with_upper_counts(&self) -> Option<Self> {
        let below = self.rung.checked_sub(1);
        let upper = Self { rung: below.unwrap_or(0), below_ladder: below.is_none(), ..*self };
        (!self.is_exact()).then_some(upper)
    }

    /// Number of positions that the criterion uses, over all sequences.
    pub(super) fn num_positions(&self) -> u64 {
        self.positions * self.acts.num_sequences as u64
    }

    /// The class of a feature. It is `None` if the feature does not pass. A feature without a hit
    /// never passes, even if the limits are 0.
    pub(super) fn classify(&self, counts: &Counts) -> Classification {
        let layer_percentage = share(counts.layers_hit as u64, counts.num_layers as u64);
        let seq_percentage = share(counts.positions_hit, counts.num_positions);
        let passes = counts.layers_hit > 0
            && layer_percentage >= self.criterion.min_layer_percentage
            && seq_percentage >= self.criterion.min_seq_percentage;
        if passes { self.class_of_passing(counts) } else { Classification::None }
    }

    /// The class of a feature that passes, by its layer share.
    pub(super) fn class_of_passing(&self, counts: &Counts) -> Classification {
        let layer_percentage = share(counts.layers_hit as u64, counts.num_layers as u64);
        match layer_percentage >= self.criterion.systematic_layers {
            true => Classification::Systematic,
            false => Classification::Probabilistic,
        }
    }
}

/// Checks that a criterion is valid and that its threshold is a rung of the record's ladder.
///
/// # Errors
/// `bad_argument` if it is not.
pub fn check_exact(acts: &Activations, criterion: &Criterion) -> Result<()> {
    BoundCriterion::new(acts, criterion).map(|_| ())
}

/// The statistics without the first `skip_positions` positions of each sequence.
///
/// # Errors
/// `bad_argument` for a number that is not recorded.
pub(super) fn fold_of(acts: &Activations, skip_positions: usize) -> Result<&Fold> {
    acts.fold(skip_positions).ok_or_else(|| {
        Error::bad_argument(format!("`skip_positions` is {skip_positions}, and only 0 and 1 are recorded"))
            .hint("0 takes all positions, 1 leaves out position 0 of each sequence")
    })
}

/// The share `part / whole`; 0 of 0 is 0. All shares that are compared or reported are computed
/// here.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The class of a model with `passing` features, of which `systematic` are systematic.
pub(super) fn classify_model(passing: usize, systematic: usize) -> Classification {
    match (passing, systematic) {
        (0, _) => Classification::None,
        (_, 0) => Classification::Probabilistic,
        _ => Classification::Systematic,
    }
}

/// Checks that limits and threshold are in range.
pub(super) fn check_numbers(criterion: &Criterion) -> Result<()> {
    let threshold = criterion.magnitude_threshold;
    if !(threshold.is_finite() && threshold > 0.0) {
        return Err(Error::bad_argument(format!("`magnitude_threshold` is {threshold:?}"))
            .hint("give a positive number; LLM.int8() uses 6.0"));
    }
    let shares = [
        ("min_layer_percentage", criterion.min_layer_percentage),
        ("min_seq_percentage", criterion.min_seq_percentage),
        ("systematic_layers", criterion.systematic_layers),
    ];
    match shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
        None => Ok(()),
        Some((name, value)) => Err(Error::bad_argument(format!("`{name}` is {value:?}, outside 0 to 1"))
            .hint("shares are fractions: write 0.25 for 25 %")),
    }
}

fn no_rung(acts: &Activations, criterion: &Criterion) -> Error {
    let threshold = criterion.magnitude_threshold;
    let ladder = &acts.ladder;
    let known = if ladder.len() <= RUNGS_LISTED {
        format!("its rungs are {ladder:?}")
    } else {
        let above = ladder.partition_point(|&rung| rung < threshold);
        let nearest = &ladder[above.saturating_sub(1)..(above + 1).min(ladder.len())];
        let (first, last) = (ladder[0], ladder[ladder.len() - 1]);
        format!("its {} rungs go from {first:?} to {last:?}, nearest are {nearest:?}", ladder.len())
    };
    Error::bad_argument(format!("`magnitude_threshold` {threshold:?} is not in the ladder of this record: {known}"))
        .hint(format!(
            "detect_outliers answers between rungs, with bounds; else choose a rung, or extract again with `thresholds: [{threshold:?}]`"
        ))
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;
    use crate::error::Kind;

    fn error(ladder: &[f32], criterion: Criterion) -> Error {
        let acts = Dense::filled(1, 2, 3, 4, 0.0).activations(ladder);
        BoundCriterion::new(&acts, &criterion).err().expect("this criterion must be refused")
    }

    #[test]
    fn shares_are_compared_inclusively() {
        let acts = Dense::filled(1, 1, 1, 1, 0.0).activations(&[6.0]);
        let criterion = Criterion { systematic_layers: 0.75, ..Criterion::default() };
        let applied = BoundCriterion::new(&acts, &criterion).unwrap();
        let class = |layers_hit, positions_hit| {
            applied.classify(&Counts { layers_hit, num_layers: 4, positions_hit, num_positions: 100 })
        };
        assert_eq!(class(1, 6), Classification::Probabilistic);
        assert_eq!(class(1, 5), Classification::None);
        assert_eq!(class(0, 100), Classification::None);
        assert_eq!(class(3, 6), Classification::Systematic);
    }

    #[test]
    fn limits_of_zero_still_ask_for_a_hit() {
        let acts = Dense::filled(1, 1, 1, 1, 0.0).activations(&[6.0]);
        let criterion = Criterion { min_layer_percentage: 0.0, min_seq_percentage: 0.0, ..Criterion::default() };
        let none = Counts { layers_hit: 0, num_layers: 4, positions_hit: 0, num_positions: 100 };
        assert_eq!(BoundCriterion::new(&acts, &criterion).unwrap().classify(&none), Classification::None);
    }

    #[test]
    fn every_percent_limit_is_met_by_that_many_in_a_hundred() {
        for percent in 0..=100u64 {
            let limit: f64 = format!("{}.{:02}", percent / 100, percent % 100).parse().unwrap();
            assert!(share(percent, 100) >= limit && share(percent * 3, 300) >= limit);
            assert!(percent == 0 || share(percent - 1, 100) < limit);
        }
    }

    #[test]
    fn a_threshold_off_the_ladder_names_the_rungs() {
        let criterion = Criterion { magnitude_threshold: 0.1, ..Criterion::default() };
        let refused = error(&[3.0, 4.5, 6.0], criterion);
        assert_eq!(refused.kind, Kind::BadArgument);
        assert_eq!(
            refused.message,
            "`magnitude_threshold` 0.1 is not in the ladder of this record: its rungs are [3.0, 4.5, 6.0]"
        );
        assert!(refused.hint.unwrap().ends_with("or extract again with `thresholds: [0.1]`"));
    }

    #[test]
    fn a_long_ladder_is_summarised() {
        let ladder: Vec<f32> = (1..=64).map(|rung| rung as f32).collect();
        for (threshold, nearest) in [(6.5, "[6.0, 7.0]"), (0.5, "[1.0]"), (70.0, "[64.0]")] {
            let refused = error(&ladder, Criterion { magnitude_threshold: threshold, ..Criterion::default() });
            let tail = format!("its 64 rungs go from 1.0 to 64.0, nearest are {nearest}");
            assert!(refused.message.ends_with(&tail), "{}", refused.message);
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let good = Criterion::default();
        for threshold in [f32::NAN, f32::INFINITY, 0.0, -6.0] {
            let refused = error(&[6.0], Criterion { magnitude_threshold: threshold, ..good.clone() });
            assert!(refused.message.contains("magnitude_threshold") && refused.hint.is_some(), "{refused}");
        }
        for bad in [-0.1, 1.1, 25.0, f64::NAN] {
            for (name, criterion) in [
                ("min_layer_percentage", Criterion { min_layer_percentage: bad, ..good.clone() }),
                ("min_seq_percentage", Criterion { min_seq_percentage: bad, ..good.clone() }),
                ("systematic_layers", Criterion { systematic_layers: bad, ..good.clone() }),
            ] {
                let refused = error(&[6.0], criterion);
                assert!(refused.message.contains(name) && refused.kind == Kind::BadArgument, "{refused}");
            }
        }
        let refused = error(&[6.0], Criterion { skip_positions: 2, ..good.clone() });
        assert!(refused.message.contains("skip_positions") && refused.hint.is_some());
    }

    #[test]
    fn a_record_without_positions_is_refused() {
        let acts = Dense::filled(1, 2, 1, 4, 7.0).activations(&[6.0]);
        let criterion = Criterion { skip_positions: 1, ..Criterion::default() };
        let refused = BoundCriterion::new(&acts, &criterion).err().expect("nothing is left without position 0");
        assert_eq!(refused.kind, Kind::BadArgument);
    }
}
