//! The outlier criterion after Dettmers et al. 2022 (LLM.int8(), section 4.1). Every choice that
//! the paper leaves open is a field.

use serde::{Deserialize, Serialize};

/// Magnitude |x| from which on a value is a hit. LLM.int8(), section 4.1.
pub const DETTMERS_MAGNITUDE: f32 = 6.0;
/// Share of layers in which a feature must have a hit. LLM.int8(), section 4.1.
pub const DETTMERS_LAYERS: f64 = 0.25;
/// Share of sequence positions at which a feature must have a hit. LLM.int8(), section 4.1.
pub const DETTMERS_POSITIONS: f64 = 0.06;
/// Share of layers from which on a passing feature is classified as systematic.
pub const SYSTEMATIC_LAYERS: f64 = 0.9;

/// The unit that `layer_percentage` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerUnit {
    /// Each of the 2 L norms separately (the original project's definition).
    Norm,
    /// A decoder layer, which has a hit if either of its norms has one (closest to Dettmers).
    Block,
}

/// The values over which the shares are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All sequences together: the result lists each feature dimension once.
    Pooled,
    /// Each sequence separately: the lists are concatenated (the original project's published
    /// counts).
    PerSequence,
}

/// A criterion. All comparisons are inclusive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    pub magnitude_threshold: f32,
    pub min_layer_percentage: f64,
    pub min_seq_percentage: f64,
    pub layer_unit: LayerUnit,
    pub scope: Scope,
    /// 0 uses all positions, 1 leaves out position 0 of each sequence.
    pub skip_positions: usize,
    /// `layer_percentage` from which on a passing feature is `SYSTEMATIC`.
    pub systematic_layers: f64,
    /// Present if a function of a script decides which features pass, in place of the two limits,
    /// which are 0 then: how such a criterion is described.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
}

impl Default for Criterion {
    fn default() -> Self {
        Self {
            magnitude_threshold: DETTMERS_MAGNITUDE,
            min_layer_percentage: DETTMERS_LAYERS,
            min_seq_percentage: DETTMERS_POSITIONS,
            layer_unit: LayerUnit::Norm,
            scope: Scope::Pooled,
            skip_positions: 0,
            systematic_layers: SYSTEMATIC_LAYERS,
            own: None,
        }
    }
}
