//! What a pass keeps of the norm outputs: enough for every criterion, small enough to store.
//!
//! X[n][s][t][d] is the output of norm n, sequence s, position t, feature d. Kept are, per (n, s, d), the signed extremes
//! and, for both signs, the number of positions at or beyond each rung of a ladder of thresholds; per (s, d) the number of
//! positions at which any norm reaches each rung. Everything is kept twice: over all positions, and without position 0.
//! Ladders are sparse: a cell exists only where the lowest rung is reached.

use serde::{Deserialize, Serialize};

use super::{Ladders, SiteId, number};

/// One norm over one sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NormFold {
    /// Largest signed value per feature, `[hidden]`; -inf where every value is NaN.
    pub max: Vec<f32>,
    /// Smallest signed value per feature, `[hidden]`; +inf where every value is NaN.
    pub min: Vec<f32>,
    /// Positions with x >= rung.
    pub positive: Ladders,
    /// Positions with x <= -rung.
    pub negative: Ladders,
}

/// The whole fold of one model over some sequences, for one choice of positions (all, or all but position 0).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// `norms[n][s]`, n in the order of `Activations::norms`.
    pub norms: Vec<Vec<NormFold>>,
    /// `any_norm[s]`: positions at which any norm reaches each rung in magnitude.
    pub any_norm: Vec<Ladders>,
}

/// Where NaN or infinity was seen in a norm output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonFinite {
    pub norm: SiteId,
    pub sequence: usize,
    pub nan: u64,
    pub infinite: u64,
}

/// Tokens each expert of one mixture-of-experts layer was given, all sequences together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertCoverage {
    pub layer: usize,
    /// `[experts]`, number of (token, slot) pairs routed to each.
    pub tokens_per_expert: Vec<u64>,
}

/// The record of one extraction. Statistics and result files are made from this alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    pub model: super::ModelInfo,
    pub tokens: super::TokensInfo,
    /// Norms in the order of computation: two per decoder layer.
    pub norms: Vec<SiteId>,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub num_sequences: usize,
    /// Positions per sequence.
    pub sequence_length: usize,
    /// Rungs of the ladder, ascending, all positive.
    pub ladder: Vec<f32>,
    /// Over all positions.
    pub all: Fold,
    /// Without position 0 of each sequence.
    pub without_first: Fold,
    /// Empty when every value was finite.
    pub non_finite: Vec<NonFinite>,
    /// One entry per mixture-of-experts layer whose FFN was computed.
    pub expert_coverage: Vec<ExpertCoverage>,
    /// Mean next-token loss per sequence in nats, when logits were asked for; infinite or NaN where a model says so.
    #[serde(default, with = "number")]
    pub mean_nll: Option<Vec<f32>>,
    /// The folder that holds `activations.safetensors`, when `keep: "full"`.
    pub full_activations: Option<String>,
    pub measurements: super::Measurements,
}

impl Activations {
    /// A copy without the folds, which are nearly all of its size.
    pub fn clone_light(&self) -> Self {
        Self {
            model: self.model.clone(),
            tokens: self.tokens.clone(),
            norms: self.norms.clone(),
            ladder: self.ladder.clone(),
            all: Fold::default(),
            without_first: Fold::default(),
            non_finite: self.non_finite.clone(),
            expert_coverage: self.expert_coverage.clone(),
            mean_nll: self.mean_nll.clone(),
            full_activations: self.full_activations.clone(),
            measurements: self.measurements.clone(),
            ..*self
        }
    }

    /// The fold over all positions (`skip_positions` 0) or without position 0 (1).
    pub fn fold(&self, skip_positions: usize) -> Option<&Fold> {
        match skip_positions {
            0 => Some(&self.all),
            1 => Some(&self.without_first),
            _ => None,
        }
    }

    /// Index of the lowest rung that is not below `threshold`; the number of rungs where all are.
    pub fn rung_at_or_above(&self, threshold: f32) -> usize {
        self.ladder.partition_point(|&rung| rung < threshold)
    }

    /// Index of the rung equal to `threshold`, if the ladder has it.
    pub fn rung(&self, threshold: f32) -> Option<usize> {
        self.ladder.iter().position(|&rung| rung == threshold)
    }
}
