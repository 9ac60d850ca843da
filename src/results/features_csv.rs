//! `features.csv`: one line per passing feature, with intervals if they were computed. An empty
//! cell is a value that was not computed.

use crate::error::{Error, Result};
use crate::record::{Bootstrap, Detection, Feature, FeatureIntervals, Interval, plain};

pub(super) const FILE: &str = "features.csv";

const COLUMNS: [&str; 21] = [
    "feature_dim",
    "classification",
    "layer_percentage",
    "layer_percentage_blocks",
    "layer_low",
    "layer_high",
    "seq_percentage",
    "seq_low",
    "seq_high",
    "max_magnitude",
    "max_low",
    "max_high",
    "max_value",
    "min_value",
    "sidedness",
    "total_occurrences",
    "quartile_25",
    "quartile_50",
    "quartile_75",
    "passed",
    "classification_held",
];

pub(super) fn encode(found: &Detection, intervals: Option<&Bootstrap>) -> Result<Vec<u8>> {
    let failed = |e: csv::Error| Error::corrupt(format!("writing {FILE}: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(failed)?;
    for feature in &found.features {
        let of_feature = |i: &&FeatureIntervals| i.feature_dim == feature.feature_dim && feature.sequence.is_none();
        let intervals = intervals.and_then(|all| all.features.iter().find(of_feature));
        writer.write_record(line(feature, intervals)).map_err(failed)?;
    }
    writer.into_inner().map_err(|e| Error::corrupt(format!("writing {FILE}: {e}")))
}

fn line(f: &Feature, intervals: Option<&FeatureIntervals>) -> Vec<String> {
    let number = |value: &dyn Fn(&FeatureIntervals) -> f64| intervals.map_or(String::new(), |i| value(i).to_string());
    let low = |of: fn(&FeatureIntervals) -> &Interval| number(&|i| of(i).low);
    let high = |of: fn(&FeatureIntervals) -> &Interval| number(&|i| of(i).high);
    let sidedness = plain(&f.sidedness).as_str().unwrap_or_default().to_string();
    let mut cells = vec![f.feature_dim.to_string(), f.classification.name().to_string()];
    cells.extend([f.layer_percentage.to_string(), f.layer_percentage_blocks.to_string()]);
    cells.extend([low(|i| &i.layer_percentage), high(|i| &i.layer_percentage)]);
    cells.extend([f.seq_percentage.to_string(), low(|i| &i.seq_percentage), high(|i| &i.seq_percentage)]);
    cells.extend([f.max_magnitude.to_string(), low(|i| &i.max_magnitude), high(|i| &i.max_magnitude)]);
    cells.extend([f.max_value.to_string(), f.min_value.to_string(), sidedness, f.total_occurrences.to_string()]);
    cells.extend(f.quartiles.map(|q| q.to_string()));
    cells.extend([number(&|i| i.passed), number(&|i| i.classification_held)]);
    cells
}
