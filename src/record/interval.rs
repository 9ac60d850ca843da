//! Bootstrap intervals, with the options of the resampling.

use serde::{Deserialize, Serialize};

use super::{Classification, Criterion, number};

/// The method that computes an interval from the bootstrap distribution, with SciPy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Quantiles of the resampled values.
    Percentile,
    /// Bias-corrected and accelerated: Efron 1987.
    Bca,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapArgs {
    pub n_resamples: usize,
    pub confidence_level: f64,
    pub method: Method,
    pub seed: u64,
}

impl Default for BootstrapArgs {
    fn default() -> Self {
        Self { n_resamples: 10_000, confidence_level: 0.95, method: Method::Bca, seed: 0 }
    }
}

/// A point estimate and its interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    #[serde(with = "number")]
    pub value: f64,
    #[serde(with = "number")]
    pub low: f64,
    #[serde(with = "number")]
    pub high: f64,
    /// The method of these bounds. BCa falls back to percentile if it is undefined because the
    /// quantity does not vary between sequences.
    pub method: Method,
}

/// The intervals of one feature that passes in the full sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureIntervals {
    pub feature_dim: usize,
    /// In the unit of the criterion.
    pub layer_percentage: Interval,
    pub seq_percentage: Interval,
    pub max_magnitude: Interval,
    /// Share of resamples in which the feature passed.
    pub passed: f64,
    /// Share of resamples in which the feature passed with its class in the full sample.
    pub classification_held: f64,
    pub classification: Classification,
}

/// The result of `bootstrap_ci`. Sequences are resampled, never tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub args: BootstrapArgs,
    /// Its scope is always pooled, because the sequences are resampled.
    pub criterion: Criterion,
    pub num_sequences: usize,
    pub num_features: Interval,
    /// Mean over the features that pass in the full sample; absent if there is none.
    pub mean_layer_percentage: Option<Interval>,
    pub mean_seq_percentage: Option<Interval>,
    /// Largest |x| over all values.
    pub max_magnitude: Interval,
    pub classification: Classification,
    /// Share of resamples in which the model's class was that of the full sample.
    pub classification_held: f64,
    /// In the order of the detection.
    pub features: Vec<FeatureIntervals>,
}
