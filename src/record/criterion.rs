//! The outlier criterion after Dettmers et al. 2022 (LLM.int8(), section 4.1), with every choice it leaves open as a field.

use serde::{Deserialize, Serialize};

/// |x| at or above which a value is a hit. LLM.int8(), section 4.1.
pub const DETTMERS_MAGNITUDE: f32 = 6.0;
/// Share of layers a feature must be hit in. LLM.int8(), section 4.1.
pub const DETTMERS_LAYERS: f64 = 0.25;
/// Share of sequence positions a feature must be hit at. LLM.int8(), section 4.1.
pub const DETTMERS_POSITIONS: f64 = 0.06;
/// Share of layers from which a passing feature is called systematic.
pub const SYSTEMATIC_LAYERS: f64 = 0.9;

/// What counts as a layer in `layer_percentage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerUnit {
    /// Each of the 2 L norms by itself (the original project's definition).
    Norm,
    /// A decoder layer, hit when either of its norms is (closest to Dettmers).
    Block,
}

/// Over what the shares are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All sequences together: a list of unique feature dimensions.
    Pooled,
    /// Within each sequence; the lists are concatenated (the original project's published counts).
    PerSequence,
}

/// All comparisons are inclusive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    pub magnitude_threshold: f32,
    pub min_layer_percentage: f64,
    pub min_seq_percentage: f64,
    pub layer_unit: LayerUnit,
    pub scope: Scope,
    /// 0 takes all positions, 1 leaves out position 0 of each sequence.
    pub skip_positions: usize,
    /// `layer_percentage` from which a passing feature is `SYSTEMATIC`.
    pub systematic_layers: f64,
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
        }
    }
}
