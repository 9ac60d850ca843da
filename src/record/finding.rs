//! The result of a criterion on a record: features, statistics per norm, and the model's class.

use serde::{Deserialize, Serialize};

use super::{Criterion, LayerUnit, Site, SiteId, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Classification {
    /// For a feature: it passes and its `layer_percentage` is at least `systematic_layers`. For a
    /// model: it has such a feature.
    Systematic,
    /// For a feature: it passes with a smaller `layer_percentage`. For a model: it has passing
    /// features, and all are of this class.
    Probabilistic,
    /// For a model: it has no passing feature.
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

/// The signs of a feature's hits.
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
    /// The sequence in which it passed, with `scope: "per_sequence"`; absent if pooled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
    /// Share of the 2 L norms with at least one hit.
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
    /// The largest and the smallest signed value.
    pub max_value: f32,
    pub min_value: f32,
    pub sidedness: Sidedness,
    /// Number of hits over all norms, sequences and positions.
    pub total_occurrences: u64,
    /// Quartiles (25, 50, 75 %) of the signed values of the hits, interpolated between rungs of the
    /// ladder, as in Table 4 of LLM.int8().
    #[serde(with = "number")]
    pub quartiles: [f64; 3],
    /// The names of the norms with a hit, such as `layers.{i}.input_layernorm`, in the order of
    /// computation.
    pub layers_affected: Vec<String>,
    pub classification: Classification,
}

/// Statistics of one norm over all sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerStats {
    pub norm: SiteId,
    /// Number of hits over all features, sequences and positions.
    pub num_outliers: u64,
    /// Number of features with at least one hit.
    pub num_features: usize,
    pub max_magnitude: f32,
    /// 100 * hits / values. This is a percentage, while all other shares are between 0 and 1.
    pub outlier_percentage: f64,
}

/// The precision of an answer: exact only if the threshold is a rung of the record's ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The threshold is a rung: every number equals the count of a new run with this threshold.
    #[default]
    Exact,
    /// The threshold lies between two rungs: layer shares and extremes are exact, positions and
    /// hits are bounded.
    Bracketed,
}

/// The upper bounds of an answer for a threshold between two rungs. The numbers of the answer
/// itself are the lower bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bracket {
    /// The rungs next to the threshold; absent if it is below or above the whole ladder.
    pub rung_below: Option<f32>,
    pub rung_above: Option<f32>,
    pub num_features_high: usize,
    pub classification_high: Classification,
    /// Features that may pass: they pass with the positions of the rung below.
    pub possible_features: Vec<PossibleFeature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PossibleFeature {
    pub feature_dim: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<usize>,
    /// In the unit of the criterion. This is exact.
    pub layer_percentage: f64,
    /// The upper bound.
    pub seq_percentage: f64,
    pub max_magnitude: f32,
    /// Its class if it passes.
    pub classification: Classification,
}

impl LayerUnit {
    /// What the layer shares of a record count that has this site: norms, decoder layers, or, of a
    /// site that is no norm, the layers that have it.
    pub fn counted(self, site: Option<Site>) -> &'static str {
        match (self, site) {
            (LayerUnit::Block, _) => "decoder layer",
            (LayerUnit::Norm, Some(site)) if !Site::NORMS.contains(&site) => "layer",
            (LayerUnit::Norm, _) => "norm",
        }
    }
}

/// The result of `detect_outliers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    pub criterion: Criterion,
    #[serde(default)]
    pub answer: Answer,
    /// Present if the answer is bracketed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bracket: Option<Bracket>,
    pub classification: Classification,
    /// Sorted by `max_magnitude`, largest first, then by `feature_dim`. With `scope:
    /// "per_sequence"`, sorted by sequence first.
    pub features: Vec<Feature>,
    pub num_features: usize,
    /// Largest |x| over all values.
    pub max_magnitude: f32,
    /// Number of features with a hit, passing or not.
    pub num_features_hit: usize,
    pub num_norms: usize,
    pub num_blocks: usize,
    /// Number of positions over which the shares are computed, for all sequences together.
    pub num_positions: u64,
    /// Number of NaN or infinite values. They are not hits.
    pub num_non_finite: u64,
    pub layer_stats: Vec<LayerStats>,
}

impl Detection {
    /// What its layer shares count: norms, decoder layers, or, of another site, the layers that
    /// have it.
    pub fn layer_unit(&self) -> &'static str {
        self.criterion.layer_unit.counted(self.layer_stats.first().map(|of| of.norm.site))
    }
}
