//! The result of a sweep over criteria: one row for each.

use serde::{Deserialize, Serialize};

use super::{Classification, Criterion, Interval};

/// One criterion of a sweep, with intervals over sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    pub criterion: Criterion,
    pub num_features: Interval,
    /// Number of passing features whose layer share is at least `systematic_layers`.
    pub num_systematic: usize,
    pub classification: Classification,
    /// Share of resamples in which the model had this class.
    pub classification_held: f64,
    /// Mean over the passing features, in the unit of the criterion; absent if none passes.
    pub mean_layer_percentage: Option<f64>,
    pub mean_seq_percentage: Option<f64>,
}
