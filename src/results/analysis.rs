//! `final_analysis_results.json` and `batch_NNN_results.json`: the keys of the original project,
//! and additional ones.
//!
//! The original's `systematic_outliers` are lists per sequence, concatenated. `pooled` is the list
//! of unique dimensions as Dettmers et al. define it. Values that differ between equal runs (times,
//! memory) stand under `measurements` only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answers::of_record;
use super::names::{CONFIG, FINAL, batch_file};
use crate::error::Result;
use crate::record::{Activations, Bootstrap, Criterion, Detection, Feature, Keep, LaneOutcome, Scope, number, plain};
use crate::stats;

/// This is raised when a key changes its meaning.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The analysis that a script passes to `save_results`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Analysis {
    pub name: String,
    pub found: Detection,
    pub intervals: Option<Bootstrap>,
    /// The experiment's own settings and notes. They are written to config.json and repeated in the
    /// result.
    pub settings: Map<String, Value>,
}

/// One sequence's outlier features in the original project's format.
fn original_feature(feature: &Feature) -> Value {
    json!({
        "feature_dim": feature.feature_dim,
        "layer_percentage": feature.layer_percentage,
        "seq_percentage": feature.seq_percentage,
        "max_magnitude": plain(&feature.max_magnitude),
        "total_occurrences": feature.total_occurrences,
        "layers_affected": feature.layers_affected,
        // The original gives the first five values. The fold keeps the extremes only.
        "example_values": plain(&[feature.max_value, feature.min_value]),
    })
}

/// Returns the names and contents of an analysis's result files, except the record itself. `record`
/// holds the length and hash of the latter.
pub(super) fn files(acts: &Activations, analysis: &Analysis, record: Value) -> Result<Vec<(String, Value)>> {
    let criterion = Criterion { scope: Scope::PerSequence, ..analysis.found.criterion.clone() };
    let per_sequence = of_record(acts, &analysis.found, &criterion)?;
    let mut by_sequence: BTreeMap<usize, Vec<&Feature>> = BTreeMap::new();
    for feature in &per_sequence.features {
        by_sequence.entry(feature.sequence.unwrap_or(0)).or_default().push(feature);
    }
    let empty = Vec::new();
    let batch = |s: usize| {
        let features = by_sequence.get(&s).unwrap_or(&empty);
        json!({
            "batch_id": s,
            "sequences_processed": 1,
            "systematic_outliers": features.iter().map(|f| original_feature(f)).collect::<Vec<_>>(),
            "outlier_summary": sequence_summary(acts, &criterion, s),
        })
    };
    let batches: Vec<Value> = (0..acts.num_sequences).map(batch).collect();
    let mut files: Vec<_> = (0..).zip(&batches).map(|(s, value): (usize, _)| (batch_file(s), value.clone())).collect();
    files.push((CONFIG.to_string(), config(acts, analysis)));
    let mut results = final_results(acts, analysis, &per_sequence, batches, record);
    if !acts.lanes.is_empty() {
        results["lanes"] = lanes(acts);
        results["lane_comparison"] = lane_comparison(acts, analysis);
    }
    files.push((FINAL.to_string(), results));
    Ok(files)
}

/// The hits and extremes per norm of one sequence.
fn sequence_summary(acts: &Activations, criterion: &Criterion, s: usize) -> Value {
    let Some(fold) = acts.fold(criterion.skip_positions) else { return Value::Null };
    // For a threshold between two rungs, these are the hits that are certain.
    let rung = acts.rung_at_or_above(criterion.magnitude_threshold);
    let positions = acts.sequence_length - criterion.skip_positions;
    let layers = acts.norms.iter().zip(&fold.norms).map(|(norm, cells)| {
        let cell = &cells[s];
        let hits: u64 = cell.positive.iter().chain(cell.negative.iter()).map(|ladder| ladder.at(rung) as u64).sum();
        let magnitude = cell.max.iter().chain(&cell.min).filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs()));
        let stats = json!({
            "num_outliers": hits,
            "max_magnitude": plain(&magnitude),
            "outlier_percentage": 100.0 * hits as f64 / (positions * acts.hidden_size) as f64,
            "shape": [1, positions, acts.hidden_size],
        });
        (norm.name(), stats)
    });
    let layer_stats: Map<String, Value> = layers.collect();
    let total = fold.any_norm[s].iter().filter(|ladder| ladder.at(rung) > 0).count();
    json!({ "total_outlier_features": total, "layer_stats": layer_stats, "threshold": plain(&criterion.magnitude_threshold) })
}

/// All choices that are needed to repeat the run.
fn config(acts: &Activations, analysis: &Analysis) -> Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "experiment_name": analysis.name,
        "model": { "id": acts.model.id, "revision": acts.model.revision, "dtype": acts.model.dtype,
                   "device": acts.model.device, "chunk_layers": acts.model.chunk_layers },
        "tokens": acts.tokens,
        "criterion": plain(&analysis.found.criterion),
        "bootstrap": analysis.intervals.as_ref().map(|intervals| &intervals.args),
        "ladder": plain(&acts.ladder),
        "keep": if acts.full_activations.is_some() { Keep::Full } else { Keep::Stats },
        "settings": analysis.settings,
    })
}

fn final_results(
    acts: &Activations,
    analysis: &Analysis,
    per_sequence: &Detection,
    batches: Vec<Value>,
    record: Value,
) -> Value {
    let mut top: BTreeMap<usize, (f32, usize)> = BTreeMap::new();
    for feature in &per_sequence.features {
        let entry = top.entry(feature.feature_dim).or_default();
        *entry = (entry.0.max(feature.max_magnitude), entry.1 + 1);
    }
    let mut top: Vec<_> = top.into_iter().collect();
    top.sort_by(|a, b| b.1.0.total_cmp(&a.1.0).then(a.0.cmp(&b.0)));
    let top = top.iter().map(|(dim, (magnitude, occurrences))| {
        json!({ "feature_dim": dim, "max_magnitude": plain(&magnitude), "occurrences": occurrences })
    });
    let mut measurements = acts.measurements.clone();
    measurements.completion_time = now();
    json!({
        "schema_version": SCHEMA_VERSION,
        "analysis_summary": {
            "total_batches": acts.num_sequences,
            "total_sequences": acts.num_sequences,
            "total_systematic_outliers": per_sequence.features.len(),
            // This is the same number under a name that holds for every class.
            "total_passing_features": per_sequence.features.len(),
            "classification": analysis.found.classification,
            "num_features": analysis.found.num_features,
            "max_magnitude": plain(&analysis.found.max_magnitude),
            "synthetic_model": acts.model.synthetic,
        },
        "run_config": {
            "model": acts.model.id,
            "dataset": acts.tokens.source,
            "num_sequences": acts.num_sequences,
            "sequence_length": acts.sequence_length,
            "batch_size": 1,
            "threshold": plain(&analysis.found.criterion.magnitude_threshold),
            "layers": Value::Null,
            "shard_range_inclusive": [0, acts.num_sequences - 1],
            "experiment_name": analysis.name,
        },
        "pooled": plain(&analysis.found),
        "intervals": analysis.intervals,
        "mean_nll": number::plain(&acts.mean_nll),
        "perplexity": perplexity(acts, analysis),
        "expert_coverage": acts.expert_coverage,
        "non_finite": acts.non_finite,
        "settings": analysis.settings,
        "provenance": {
            "program": concat!("outlier ", env!("CARGO_PKG_VERSION")),
            "model": acts.model,
            "tokens": acts.tokens,
            "seed": analysis.intervals.as_ref().map(|intervals| intervals.args.seed),
            "ladder": plain(&acts.ladder),
        },
        "top_features": top.collect::<Vec<_>>(),
        "all_systematic_outliers": per_sequence.features.iter().map(original_feature).collect::<Vec<_>>(),
        "batch_results": batches,
        "record": record,
        "measurements": measurements,
    })
}

/// Perplexity with intervals, if losses were measured on enough sequences.
fn perplexity(acts: &Activations, analysis: &Analysis) -> Value {
    let args = analysis.intervals.as_ref().map(|intervals| intervals.args.clone()).unwrap_or_default();
    stats::perplexity(acts, &args).map_or(Value::Null, |perplexity| plain(&perplexity))
}

/// What lanes came to, sequence by sequence, without counts of single norms.
fn lanes(acts: &Activations) -> Value {
    let of = |lane: &LaneOutcome| {
        json!({
            "name": lane.name,
            "changes": plain(&lane.changes),
            "mean_nll": number::plain(&lane.mean_nll),
            "kl": number::plain(&lane.kl),
            "top1_agreement": plain(&lane.top1_agreement),
            "top1_probability": number::plain(&lane.top1_probability),
        })
    };
    acts.lanes.iter().map(of).collect()
}

/// Lanes against the model as it is, if there are enough sequences.
fn lane_comparison(acts: &Activations, analysis: &Analysis) -> Value {
    let args = analysis.intervals.as_ref().map(|intervals| intervals.args.clone()).unwrap_or_default();
    stats::compare_lanes(acts, &args).map_or(Value::Null, |rows| plain(&rows))
}

/// The current time as RFC 3339, in UTC and whole seconds.
fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}
