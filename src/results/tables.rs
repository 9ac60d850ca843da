//! Every table of a stored analysis, for `export_tables`.

use serde_json::{Map, Value, json};

use super::answers::of_record;
use super::rows::{Row, object, row};
use super::{Stored, Table, lane_tables, measure_tables};
use crate::error::Result;
use crate::record::{Criterion, Feature, Scope};
use crate::stats;

/// Returns the names and rows of all non-empty tables, for the criterion of the analysis.
pub fn tables(stored: &Stored) -> Result<Vec<(&'static str, Table)>> {
    let acts = &*stored.activations;
    let criterion = &stored.found.criterion;
    let per_sequence = Criterion { scope: Scope::PerSequence, ..criterion.clone() };
    let per_sequence = of_record(acts, &stored.found, &per_sequence)?;
    let mut tables = vec![
        ("features", stored.found.features.iter().map(|feature| with_intervals(stored, feature)).collect()),
        ("features_per_sequence", per_sequence.features.iter().map(row).collect()),
        ("norms", stored.found.layer_stats.iter().map(|norm| flat(&row(norm))).collect()),
        ("sequences", stats::per_sequence_of(acts, &per_sequence)?.iter().map(row).collect::<Vec<Row>>()),
        ("magnitudes", stats::magnitude_histogram(acts, criterion.skip_positions)?.iter().map(row).collect()),
    ];
    if !acts.expert_coverage.is_empty() {
        let experts = acts.expert_coverage.iter().flat_map(|layer| {
            let counts = layer.tokens_per_expert.iter().enumerate();
            counts.map(|(expert, tokens)| object(json!({ "layer": layer.layer, "expert": expert, "tokens": tokens })))
        });
        tables.push(("experts", experts.collect()));
    }
    tables.extend(measure_tables::of(acts));
    tables.extend(lane_tables::of(stored));
    let filled = tables.into_iter().filter(|(_, rows)| !rows.is_empty());
    Ok(filled.map(|(name, rows)| (name, Table::new(&[], &rows))).collect())
}

/// Flattens `norm: { layer, site }` into two columns.
fn flat(row: &Row) -> Row {
    let mut flat = Map::new();
    for (key, value) in row {
        match value {
            Value::Object(inner) => flat.extend(inner.clone()),
            other => {
                flat.insert(key.clone(), other.clone());
            }
        }
    }
    flat
}

/// The row of a feature, with its intervals as `…_low` and `…_high`.
fn with_intervals(stored: &Stored, feature: &Feature) -> Row {
    let mut row = row(feature);
    let quartiles = ["quartile_25", "quartile_50", "quartile_75"].into_iter().zip(feature.quartiles);
    row.remove("quartiles");
    row.extend(quartiles.map(|(name, value)| (name.to_string(), value.into())));
    let of_feature = |all: &crate::record::Bootstrap| {
        all.features.iter().find(|i| i.feature_dim == feature.feature_dim && feature.sequence.is_none()).cloned()
    };
    if let Some(intervals) = stored.intervals.as_deref().and_then(of_feature) {
        for (name, interval) in [
            ("layer_percentage", &intervals.layer_percentage),
            ("seq_percentage", &intervals.seq_percentage),
            ("max_magnitude", &intervals.max_magnitude),
        ] {
            row.insert(format!("{name}_low"), interval.low.into());
            row.insert(format!("{name}_high"), interval.high.into());
        }
        row.insert("passed".into(), intervals.passed.into());
        row.insert("classification_held".into(), intervals.classification_held.into());
    }
    row
}
