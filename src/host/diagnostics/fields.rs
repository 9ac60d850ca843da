//! Names of the fields of records. A record reaches a script as a map, which does not know its
//! possible fields.

use std::sync::OnceLock;

use crate::host::values::shapes::names_of;
use crate::record::{
    Agreement, AttentionTop1, Bootstrap, BootstrapArgs, Bracket, Cell, Criterion, Detection, Estimate, EstimateArgs,
    ExpertCoverage, Feature, FeatureIntervals, FileHash, HeatMap, Interval, LaneComparison, LaneOutcome, LayerProfile,
    LayerStats, MagnitudeBin, Measurements, Miniature, ModelInfo, NonFinite, NormHits, Perplexity, PossibleFeature,
    SequenceValues, SequencesNeeded, StoredAs, SweepRow, TestResult, TokensInfo, TokensPart, UndecidedFeature,
};

/// Fields of maps that are no records: errors, outcomes of `parallel`, machines, commands, copies.
const OF_MAPS: [&str; 15] = [
    "site",
    "provider",
    "price",
    "cost",
    "keep_running",
    "code",
    "out",
    "err",
    "files_sent",
    "files_received",
    "unchanged",
    "message",
    "hint",
    "ok",
    "error",
];

/// Adds the names of the fields of records.
macro_rules! add_fields {
    ($names:ident: $($record:ty),* $(,)?) => {
        $($names.extend(names_of::<$record>());)*
    };
}

/// The names of the fields of all records that scripts read as maps.
pub(crate) fn fields() -> impl Iterator<Item = &'static str> + Clone {
    static FIELDS: OnceLock<Vec<&'static str>> = OnceLock::new();
    let fields = FIELDS.get_or_init(|| {
        let mut names = Vec::new();
        add_fields!(
            names: Feature, Bracket, PossibleFeature, Detection, LayerStats, Criterion, BootstrapArgs, Interval,
            FeatureIntervals, Bootstrap, SequencesNeeded, Agreement, UndecidedFeature, TestResult, SweepRow, Perplexity,
            Cell, HeatMap, LayerProfile, MagnitudeBin, SequenceValues, Estimate, EstimateArgs, ModelInfo, StoredAs, FileHash,
            TokensInfo, TokensPart, Measurements, Miniature, NonFinite, ExpertCoverage, LaneOutcome, LaneComparison,
            NormHits, AttentionTop1,
        );
        names.extend(OF_MAPS);
        names
    });
    fields.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn fields_are_those_of_the_records() {
        for name in ["magnitude_threshold", "num_features", "seq_percentage", "p_value", "total_bytes", "files_sent"] {
            assert!(fields().any(|field| field == name), "{name}");
        }
        assert!(fields().count() > 140);
    }
}
