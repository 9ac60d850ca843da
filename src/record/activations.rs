//! The record of the norm outputs of one pass: enough for every criterion, and small enough to
//! store.
//!
//! X[n][s][t][d] is the output of norm n at sequence s, position t and feature d. For each (n, s,
//! d) the record has the signed extremes and, for both signs, the number of positions at or beyond
//! each rung of a ladder of thresholds. For each (s, d) it has the number of positions at which any
//! norm reaches each rung. Everything is recorded twice: over all positions, and without position
//! 0. Ladders are sparse: a feature has one only if it reaches the lowest rung.

use serde::{Deserialize, Serialize};

use super::{Ladders, LaneOutcome, Measures, Site, SiteId, number};

/// The statistics of one norm over one sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NormFold {
    /// Largest signed value of each feature, `[hidden]`; -inf if every value is NaN.
    pub max: Vec<f32>,
    /// Smallest signed value of each feature, `[hidden]`; +inf if every value is NaN.
    pub min: Vec<f32>,
    /// Number of positions with x >= rung.
    pub positive: Ladders,
    /// Number of positions with x <= -rung.
    pub negative: Ladders,
}

/// The statistics of one model over some sequences, for one choice of positions: all, or all but
/// position 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// `norms[n][s]`, with n in the order of `Activations::norms`.
    pub norms: Vec<Vec<NormFold>>,
    /// `any_norm[s]`: the number of positions at which any norm reaches each rung in magnitude.
    pub any_norm: Vec<Ladders>,
}

/// A norm output that contains NaN or infinity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonFinite {
    pub norm: SiteId,
    pub sequence: usize,
    pub nan: u64,
    pub infinite: u64,
}

/// Number of tokens that each expert of one mixture-of-experts layer processed, over all sequences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertCoverage {
    pub layer: usize,
    /// `[experts]`: the number of (token, slot) pairs routed to each expert.
    pub tokens_per_expert: Vec<u64>,
}

/// The ladders of one more site over the layers that have it, as a record has them of norms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteLadders {
    pub site: Site,
    /// Number of features.
    pub width: usize,
    pub layers: Vec<usize>,
    pub all: Fold,
    pub without_first: Fold,
    pub non_finite: Vec<NonFinite>,
}

impl SiteLadders {
    /// A copy without the statistics.
    pub fn clone_light(&self) -> Self {
        let (all, without_first) = (Fold::default(), Fold::default());
        let (layers, non_finite) = (self.layers.clone(), self.non_finite.clone());
        Self { layers, non_finite, all, without_first, ..*self }
    }
}

/// The record of one extraction. All statistics and result files are computed from it alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    pub model: super::ModelInfo,
    pub tokens: super::TokensInfo,
    /// The norms in the order of computation, two per decoder layer.
    pub norms: Vec<SiteId>,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub num_sequences: usize,
    /// Positions per sequence.
    pub sequence_length: usize,
    /// The rungs of the ladder, ascending and positive.
    pub ladder: Vec<f32>,
    /// Statistics over all positions.
    pub all: Fold,
    /// Statistics without position 0 of each sequence.
    pub without_first: Fold,
    /// Empty if every value was finite.
    pub non_finite: Vec<NonFinite>,
    /// One entry per mixture-of-experts layer whose feed-forward network was computed.
    pub expert_coverage: Vec<ExpertCoverage>,
    /// Mean next-token loss per sequence in nats, if logits were requested. It may be infinite or
    /// NaN.
    #[serde(default, with = "number")]
    pub mean_nll: Option<Vec<f32>>,
    /// The folder of `activations.safetensors`, with `keep: "full"`.
    pub full_activations: Option<String>,
    pub measurements: super::Measurements,
    /// The ladders of other sites, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteLadders>,
    /// What else was measured.
    #[serde(default, skip_serializing_if = "Measures::is_empty")]
    pub measures: Measures,
    /// What lanes came to, if there were any: first the model as it is, then each lane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneOutcome>,
}

impl Activations {
    /// A copy without the statistics, which are nearly all of its size.
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
            sites: self.sites.iter().map(SiteLadders::clone_light).collect(),
            measures: self.measures.clone_light(),
            lanes: self.lanes.clone(),
            ..*self
        }
    }

    /// The record of another site, whose units are the layers that have it.
    pub fn at(&self, site: Site) -> Option<Self> {
        let ladders = self.sites.iter().find(|ladders| ladders.site == site)?;
        Some(Self {
            norms: ladders.layers.iter().map(|layer| SiteId { layer: *layer, site }).collect(),
            hidden_size: ladders.width,
            all: ladders.all.clone(),
            without_first: ladders.without_first.clone(),
            non_finite: ladders.non_finite.clone(),
            sites: Vec::new(),
            measures: Measures::default(),
            lanes: Vec::new(),
            full_activations: None,
            ..self.clone_light()
        })
    }

    /// Bytes of the statistics in memory, which are nearly all of its size.
    pub fn bytes(&self) -> usize {
        let of_norm = |norm: &NormFold| {
            size_of_val(&*norm.max) + size_of_val(&*norm.min) + norm.positive.bytes() + norm.negative.bytes()
        };
        let of_fold = |fold: &Fold| {
            let norms: usize = fold.norms.iter().flatten().map(of_norm).sum();
            norms + fold.any_norm.iter().map(Ladders::bytes).sum::<usize>()
        };
        of_fold(&self.all) + of_fold(&self.without_first)
    }

    /// The statistics over all positions (`skip_positions` 0) or without position 0 (1).
    pub fn fold(&self, skip_positions: usize) -> Option<&Fold> {
        match skip_positions {
            0 => Some(&self.all),
            1 => Some(&self.without_first),
            _ => None,
        }
    }

    /// Index of the lowest rung at or above `threshold`, or the number of rungs if there is none.
    pub fn rung_at_or_above(&self, threshold: f32) -> usize {
        self.ladder.partition_point(|&rung| rung < threshold)
    }

    /// Index of the rung equal to `threshold`, if the ladder has it.
    pub fn rung(&self, threshold: f32) -> Option<usize> {
        self.ladder.iter().position(|&rung| rung == threshold)
    }
}
