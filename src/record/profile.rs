//! Data for figures: magnitudes by norm and feature, their distribution, and numbers per sequence.

use serde::{Deserialize, Serialize};

/// Largest |x| by norm and feature. If there are more features than columns, neighbouring features
/// share a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// One row per norm, in the order of computation.
    pub norms: Vec<String>,
    pub hidden_size: usize,
    pub features_per_column: usize,
    /// `[norm][column]`: the largest |x| over sequences, positions and the features of the column.
    pub values: Vec<Vec<f32>>,
    /// `[norm][column]`: the feature of that largest |x|.
    pub feature_dims: Vec<Vec<u32>>,
}

/// Largest |x| of one feature in every norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerProfile {
    pub feature_dim: usize,
    /// One per norm, in the order of computation.
    pub max_magnitude: Vec<f32>,
}

/// One feature at one norm, over all sequences or in one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub layer: usize,
    /// The name of the site, such as `input_layernorm`.
    pub site: String,
    pub feature_dim: usize,
    /// Absent over all sequences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
    /// The largest and the smallest signed value; absent if no value is finite.
    pub max_value: Option<f32>,
    pub min_value: Option<f32>,
    /// Number of values at or beyond the threshold, of both signs.
    pub hits: u64,
    /// Their share of the positions.
    pub share: f64,
}

/// Number of values between two rungs of the ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MagnitudeBin {
    /// 0 for the bin below the lowest rung.
    pub from: f32,
    /// Absent for the bin above the highest rung.
    pub to: Option<f32>,
    pub positive: u64,
    pub negative: u64,
    /// Number of values of both signs. Below the lowest rung only this is known.
    pub count: u64,
}

/// Statistics of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceValues {
    pub sequence: usize,
    pub num_features: usize,
    /// Means over the features that pass in this sequence; absent if there is none.
    pub mean_layer_percentage: Option<f64>,
    pub mean_seq_percentage: Option<f64>,
    pub max_magnitude: f32,
    /// Number of hits of all features, passing or not.
    pub total_occurrences: u64,
    /// Next-token loss in nats, if it was measured.
    pub mean_nll: Option<f32>,
}
