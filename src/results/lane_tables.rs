//! Tables of lanes: what variants of a model came to, sequence by sequence and in comparison.
//! docs/lanes.md defines the columns.

use serde_json::{Value, json};

use super::Stored;
use super::rows::{Row, object, row};
use crate::record::{Activations, AttentionTop1, LaneOutcome, NormHits, plain};
use crate::stats;

/// Names and rows of all tables. A record without lanes has no rows, and one of too few sequences
/// no comparison.
pub(super) fn of(stored: &Stored) -> Vec<(&'static str, Vec<Row>)> {
    let acts = &*stored.activations;
    let of_lanes = |rows: fn(&Activations, &LaneOutcome) -> Vec<Row>| -> Vec<Row> {
        acts.lanes.iter().flat_map(|lane| rows(acts, lane)).collect()
    };
    vec![
        ("lanes", of_lanes(sequences)),
        ("lane_comparison", comparison(stored)),
        ("lane_attention", of_lanes(attention)),
        ("lane_norm_hits", of_lanes(hits)),
    ]
}

/// A row for each sequence.
fn sequences(acts: &Activations, lane: &LaneOutcome) -> Vec<Row> {
    let of = |sequence: usize| {
        object(json!({
            "lane": lane.name, "sequence": sequence, "mean_nll": plain(&lane.mean_nll.get(sequence)),
            "kl": plain(&lane.kl.get(sequence)), "top1_agreement": plain(&lane.top1_agreement.get(sequence)),
            "top1_probability": plain(&lane.top1_probability.get(sequence)), "changes": plain(&lane.changes),
        }))
    };
    (0..acts.num_sequences).map(of).collect()
}

/// A row for each lane but the model as it is: intervals as `…_low` and `…_high`.
fn comparison(stored: &Stored) -> Vec<Row> {
    let args = stored.intervals.as_ref().map(|intervals| intervals.args.clone()).unwrap_or_default();
    // Too few sequences are no mistake of whoever asks for tables.
    let compared = stats::compare_lanes(&stored.activations, &args).unwrap_or_default();
    compared.iter().map(|lane| flat(&row(lane))).collect()
}

/// Intervals and the test as columns.
fn flat(row: &Row) -> Row {
    let mut flat = Row::new();
    for (key, value) in row {
        match value {
            Value::Object(test) if key == "test" => {
                let of_test = ["statistic", "p_value", "exact"].map(|name| (name, test.get(name)));
                flat.extend(of_test.map(|(name, value)| (name.to_string(), value.cloned().unwrap_or_default())));
            }
            Value::Object(interval) => {
                for (name, part) in [("", "value"), ("_low", "low"), ("_high", "high")] {
                    flat.insert(format!("{key}{name}"), interval.get(part).cloned().unwrap_or_default());
                }
            }
            other => {
                flat.insert(key.clone(), other.clone());
            }
        }
    }
    flat
}

/// A row for each layer that was looked at and each sequence.
fn attention(_: &Activations, lane: &LaneOutcome) -> Vec<Row> {
    let of_layer = |of: &AttentionTop1| -> Vec<Row> {
        let probability = |(sequence, value): (usize, &f32)| {
            object(json!({ "lane": lane.name, "layer": of.layer, "sequence": sequence, "probability": plain(value) }))
        };
        of.probability.iter().enumerate().map(probability).collect()
    };
    lane.attention_top1.iter().flat_map(of_layer).collect()
}

/// A row for each norm and sequence.
fn hits(_: &Activations, lane: &LaneOutcome) -> Vec<Row> {
    let of_norm = |of: &NormHits| -> Vec<Row> {
        let counts = |(sequence, (three, six)): (usize, (&u32, &u32))| {
            object(json!({
                "lane": lane.name, "layer": of.at.layer, "site": of.at.site.name(), "sequence": sequence,
                "at_least_3": three, "at_least_6": six,
            }))
        };
        of.at_least_3.iter().zip(&of.at_least_6).enumerate().map(counts).collect()
    };
    lane.norm_hits.iter().flat_map(of_norm).collect()
}
