//! What observers measure of weights, of what writes to the residual stream, and of the
//! distribution of values, as plain data. docs/measures.md has each definition.

use serde::{Deserialize, Serialize};

use super::{SiteId, number};

/// A matrix of the checkpoint. Errors are those of rounding to the nearest integer, relative to the
/// sum of squares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightStats {
    pub name: String,
    /// Its layer; None outside the layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The shape as stored.
    pub shape: Vec<usize>,
    /// Number of rows of outputs, of all experts of a stack.
    pub rows: u64,
    /// The rows that all other numbers are of.
    pub rows_measured: u64,
    #[serde(with = "number")]
    pub absmax: f32,
    #[serde(with = "number")]
    pub excess_kurtosis: f32,
    /// In eight bits with a scale for each row of outputs.
    #[serde(with = "number")]
    pub int8_error: f32,
    /// In four bits with a scale for each 128 inputs.
    #[serde(with = "number")]
    pub int4_error: f32,
}

/// What has written large values of the residual stream. Writes are known of the given positions of
/// the first sequences, in all dimensions, and of the given dimensions, at all tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// Number of first sequences whose positions are known.
    pub sequences: usize,
    pub positions: Vec<usize>,
    pub dims: Vec<usize>,
    /// The largest known values of the stream after any layer, largest first.
    pub values: Vec<AttributedValue>,
}

/// A dimension of the residual stream at a token. After a layer it is the embedding and all that
/// layers up to this one have written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributedValue {
    pub sequence: usize,
    pub position: usize,
    pub token_id: u32,
    pub dim: usize,
    #[serde(with = "number")]
    pub embedding: f32,
    pub layers: Vec<LayerWrites>,
}

/// What a layer has written to a dimension at a token. Parts that the layer does not have, or that
/// do not write by themselves, are None.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerWrites {
    pub layer: usize,
    /// The attention, or another token mixer.
    #[serde(with = "number")]
    pub attention: Option<f32>,
    /// The dense network; a mixture as a whole if its sum is normalised or multiplied.
    #[serde(with = "number")]
    pub feed_forward: Option<f32>,
    #[serde(with = "number")]
    pub shared_expert: Option<f32>,
    /// The routed experts, with their routing weights.
    pub experts: Vec<ExpertWrite>,
    /// What is left of the difference that the layer makes: rounding, and in some architectures a
    /// norm or a factor of the whole stream.
    #[serde(with = "number")]
    pub rest: f32,
    /// The value after the layer.
    #[serde(with = "number")]
    pub residual: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertWrite {
    pub expert: usize,
    #[serde(with = "number")]
    pub value: f32,
}

/// The levels of `Quantiles`.
pub const QUANTILE_LEVELS: [f64; 7] = [0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999];

/// Quantiles of |x| over all rows and channels of a site in a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    #[serde(flatten)]
    pub at: SiteId,
    /// Number of values, without those that are NaN or infinite.
    pub count: u64,
    pub non_finite: u64,
    /// One for each of `QUANTILE_LEVELS`, linear between ranks; within 1/256 of the exact ones.
    #[serde(with = "number")]
    pub values: Vec<f32>,
}
