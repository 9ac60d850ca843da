//! What figures are drawn from: magnitudes by norm and feature, their distribution, and numbers per sequence.

use serde::{Deserialize, Serialize};

/// Largest |x| by norm and feature; neighbouring features share a column where there are more than columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// One row per norm, in the order of computation.
    pub norms: Vec<String>,
    pub hidden_size: usize,
    pub features_per_column: usize,
    /// `[norm][column]`: the largest |x| over sequences, positions and the features of the column.
    pub values: Vec<Vec<f32>>,
    /// `[norm][column]`: the feature that has it.
    pub feature_dims: Vec<Vec<u32>>,
}

/// Largest |x| of one feature in every norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerProfile {
    pub feature_dim: usize,
    /// One per norm, in the order of computation.
    pub max_magnitude: Vec<f32>,
}

/// Values between two rungs of the ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MagnitudeBin {
    /// 0 below the lowest rung.
    pub from: f32,
    /// Absent behind the highest.
    pub to: Option<f32>,
    pub positive: u64,
    pub negative: u64,
    /// Of both signs; below the lowest rung signs are not told apart.
    pub count: u64,
}

/// One sequence by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceValues {
    pub sequence: usize,
    pub num_features: usize,
    /// Means over the features that pass in this sequence; absent where none does.
    pub mean_layer_percentage: Option<f64>,
    pub mean_seq_percentage: Option<f64>,
    pub max_magnitude: f32,
    /// Hits of all features, passing or not.
    pub total_occurrences: u64,
    /// Next-token loss in nats, where it was measured.
    pub mean_nll: Option<f32>,
}
