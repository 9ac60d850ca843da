//! What a criterion found in a record: features, per-norm statistics, the model's class.

use serde::{Deserialize, Serialize};

use super::{Criterion, SiteId, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Classification {
    /// A passing feature with `layer_percentage` >= `systematic_layers`; a model that has one.
    Systematic,
    /// A passing feature below that; a model whose passing features are all of this class.
    Probabilistic,
    /// A model without a passing feature.
    None,
}

impl Classification {
    pub fn name(self) -> &'static str {
        match self {
            Classification::Systematic => "SYSTEMATIC",
            Classification::Probabilistic => "PROBABILISTIC",
            Classification::None => "NONE",
        }
    }
}

/// Which signs the hits of a feature have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sidedness {
    Positive,
    Negative,
    TwoSided,
}

/// One feature dimension that passes the criterion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    pub feature_dim: usize,
    /// The sequence it passed in, with `scope: "per_sequence"`; absent when pooled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
    /// Share of norms (2 L) with at least one hit.
    pub layer_percentage: f64,
    /// Share of decoder layers with a hit in either norm.
    pub layer_percentage_blocks: f64,
    pub norms_hit: usize,
    pub blocks_hit: usize,
    /// Share of positions with a hit in any norm.
    pub seq_percentage: f64,
    /// Number of such positions.
    pub seq_positions: u64,
    /// Largest |x| over norms, sequences and positions.
    pub max_magnitude: f32,
    /// Largest and smallest signed value.
    pub max_value: f32,
    pub min_value: f32,
    pub sidedness: Sidedness,
    /// Hits over all norms, sequences and positions.
    pub total_occurrences: u64,
    /// Quartiles (25, 50, 75 %) of the signed hit values, interpolated between rungs of the ladder, as in Table 4 of
    /// LLM.int8().
    #[serde(with = "number")]
    pub quartiles: [f64; 3],
    /// `layers.{i}.input_layernorm`, …: the norms with a hit, in the order of computation.
    pub layers_affected: Vec<String>,
    pub classification: Classification,
}

/// One norm over all sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerStats {
    pub norm: SiteId,
    /// Hits over all features, sequences and positions.
    pub num_outliers: u64,
    /// Features with at least one hit.
    pub num_features: usize,
    pub max_magnitude: f32,
    /// 100 * hits / values: a percentage, where all other shares are 0 to 1.
    pub outlier_percentage: f64,
}

/// Whether a threshold was a rung of the record's ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was: every number is what a fresh run with this threshold would count.
    #[default]
    Exact,
    /// It lies between two rungs: layer shares and extremes are exact, positions and hits are bounded.
    Bracketed,
}

/// What a threshold between two rungs leaves open. The numbers beside it are the least they can be, these the most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bracket {
    /// The rungs next to the threshold; absent where it is below or above the whole ladder.
    pub rung_below: Option<f32>,
    pub rung_above: Option<f32>,
    pub num_features_high: usize,
    pub classification_high: Classification,
    /// Features that may pass: those that do with the positions of the rung below.
    pub possible_features: Vec<PossibleFeature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PossibleFeature {
    pub feature_dim: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
    /// In the unit of the criterion; exact.
    pub layer_percentage: f64,
    /// The most it can be.
    pub seq_percentage: f64,
    pub max_magnitude: f32,
    /// The class it has if it passes.
    pub classification: Classification,
}

/// What `detect_outliers` returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    pub criterion: Criterion,
    #[serde(default)]
    pub answer: Answer,
    /// Where the answer is bracketed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bracket: Option<Bracket>,
    pub classification: Classification,
    /// Sorted by `max_magnitude`, largest first, ties by `feature_dim`; per sequence: by sequence first.
    pub features: Vec<Feature>,
    pub num_features: usize,
    /// Largest |x| over everything.
    pub max_magnitude: f32,
    /// Features with any hit, passing or not.
    pub num_features_hit: usize,
    pub num_norms: usize,
    pub num_blocks: usize,
    /// Positions the shares are taken over, all sequences together.
    pub num_positions: u64,
    /// NaN or infinite values met; such values are no hits.
    pub num_non_finite: u64,
    pub layer_stats: Vec<LayerStats>,
}
