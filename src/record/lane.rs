//! Lanes: variants of a model that share one read of its weights, as plain data. docs/lanes.md has
//! the definitions.
//!
//! Layers, sequences, positions, dimensions and experts count from 0.

use serde::{Deserialize, Serialize};

use super::option::{OptionType, defaults, option_set};
use super::option_types::{Flag, Word};
use super::{Interval, Site, SiteId, TestResult, number};

/// Magnitudes that are counted in the norm outputs of every lane.
pub const HIT_THRESHOLDS: [f32; 2] = [3.0, 6.0];

/// The largest number of lanes of one pass.
pub const MAX_LANES: usize = 64;

/// The name of lane 0, the model as it is.
pub const BASELINE: &str = "baseline";

/// Sites at which a lane can change values.
pub const CHANGEABLE: [Site; 3] = [Site::AttnIn, Site::FfnIn, Site::ResidPost];

/// A variant of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    pub name: String,
    pub changes: Vec<Change>,
}

/// One difference between a lane and the model as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Change {
    /// Features get another value.
    Features { to: NewValue, dims: Dims, at: Places },
    /// Every value whose magnitude is larger becomes 0.
    ZeroBeyond { threshold: f32, at: Places },
    /// Elements (sequence, position, dimension) of the residual stream after a layer get another
    /// value: `Zero` or `Mean`.
    Elements { to: NewValue, layer: usize, elements: Vec<[usize; 3]> },
    /// A weight of a linear layer becomes 0.
    ZeroWeight(WeightPlace),
    /// Experts of a layer add nothing. The router chooses as before.
    ExpertsOff { layer: usize, experts: Vec<usize> },
    /// The inputs of the linear layers are rounded. Without layers, in all.
    RoundActivations { format: ActivationFormat, layers: Vec<usize> },
    /// The weights of the linear layers are rounded. Without layers, in all.
    RoundWeights { format: WeightFormat, layers: Vec<usize> },
}

/// Places in a pass. An empty list is all: all layers that have the sites, and all positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Places {
    pub sites: Vec<Site>,
    pub layers: Vec<usize>,
    pub positions: Vec<usize>,
}

/// Features of the residual stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dims {
    Given(Vec<usize>),
    /// So many, drawn without replacement from those that are not in `except`.
    Random {
        count: usize,
        seed: u64,
        except: Vec<usize>,
    },
}

/// What a value becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewValue {
    Zero,
    /// Itself times this.
    Scale(f32),
    /// The mean of the feature over all positions of all sequences, in the model as it is.
    Mean,
    /// A value for each feature.
    Given(Vec<f32>),
}

/// A weight of a linear layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightPlace {
    pub layer: usize,
    /// The name of the module in the checkpoint, or the end of it, such as `down_proj`.
    pub module: String,
    /// The expert, if it is one of a routed expert.
    pub expert: Option<usize>,
    /// Index of the output.
    pub row: usize,
    /// Index of the input.
    pub column: usize,
}

/// A format to which inputs of linear layers are rounded. Scales of a row are those of a token, and
/// those of a tensor are those of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationFormat {
    /// 8-bit integers with a scale for each row.
    Int8,
    /// The same without columns that have a magnitude of 6 or more in the sequence, which stay
    /// exact, as their weights do (Dettmers et al. 2022).
    Int8Decomposed,
    /// E4M3 with a scale for each row.
    Fp8,
    /// E2M1 with a power of two as scale for each 32 values.
    Mxfp4,
    /// E2M1 with an E4M3 scale for each 16 values, relative to one of the sequence.
    Nvfp4,
}

impl Word for ActivationFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("int8", Self::Int8),
        ("int8_decomposed", Self::Int8Decomposed),
        ("fp8", Self::Fp8),
        ("mxfp4", Self::Mxfp4),
        ("nvfp4", Self::Nvfp4),
    ];
}

/// A format to which weights are rounded, to the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// 8-bit integers with a scale for each output.
    Int8,
    /// 4-bit integers from -7 to 7 with a scale for each 128 inputs of an output.
    Int4,
    /// E4M3 with a scale for each output.
    Fp8,
    /// E2M1 with an E4M3 scale for each 16 inputs of an output, relative to one of the weight.
    Nvfp4,
}

impl Word for WeightFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("int8", Self::Int8), ("int4", Self::Int4), ("fp8", Self::Fp8), ("nvfp4", Self::Nvfp4)];
}

/// How the inputs of a linear layer are rounded.
#[derive(Clone, Debug)]
pub struct InputRounding<W> {
    pub format: ActivationFormat,
    /// Number of rows that have the scales of a tensor in common: the positions of a sequence.
    pub rows: usize,
    /// The weight of columns that stay exact, if it is not that of the layer.
    pub exact: Option<W>,
}

option_set! {
    /// Variants of the model that are computed beside it.
    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    pub struct LaneArgs {
        /// variants of the model that share its read of the weights, each a map with `name` and
        /// `changes`: docs/lanes.md
        lanes: Lanes = Vec::new();
        /// of lanes that change attn_in: the largest attention probability of a query, with the
        /// change in one layer at a time
        attention_top1: Flag = false;
    }
}

impl Default for LaneArgs {
    fn default() -> Self {
        defaults::<Self>()
    }
}

impl LaneArgs {
    /// True if a lane has weights of its own.
    pub fn change_weights(&self) -> bool {
        let changes = self.lanes.iter().flat_map(|lane| &lane.changes);
        changes.into_iter().any(|change| matches!(change, Change::RoundWeights { .. } | Change::ZeroWeight(_)))
    }

    /// Whether these are outcomes of these lanes: after the model as it is one for each, with no
    /// changes but those that were asked for.
    pub fn answered_by(&self, outcomes: &[LaneOutcome]) -> bool {
        let Some((first, others)) = outcomes.split_first() else { return self.lanes.is_empty() };
        let asked_for = |(lane, outcome): (&Lane, &LaneOutcome)| {
            let known = |change: &Change| lane.changes.iter().any(|asked| change.answers(asked));
            outcome.name == lane.name.trim() && outcome.changes.iter().all(known)
        };
        let all = self.lanes.iter().zip(others).all(asked_for);
        all && others.len() == self.lanes.len()
            && !others.is_empty()
            && first.name == BASELINE
            && first.changes.is_empty()
    }

    /// True if there is no lane beside the model as it is.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Lanes as an option.
pub struct Lanes;

impl OptionType for Lanes {
    type Value = Vec<Lane>;

    fn kind() -> String {
        "array".to_string()
    }

    fn literal(_: &Vec<Lane>) -> String {
        "[]".to_string()
    }
}

/// What a lane came to. The first lane of a record is the model as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneOutcome {
    pub name: String,
    /// Its changes, with the features that were drawn.
    pub changes: Vec<Change>,
    /// Mean next-token loss of each sequence in nats; empty for sequences of one token.
    #[serde(with = "number")]
    pub mean_nll: Vec<f32>,
    /// Kullback-Leibler divergence of the lane's next-token distribution from that of the model as
    /// it is, in nats: the mean over all positions of each sequence.
    #[serde(with = "number")]
    pub kl: Vec<f32>,
    /// Share of positions whose most probable next token is that of the model as it is.
    pub top1_agreement: Vec<f32>,
    /// Mean over positions of the largest next-token probability.
    #[serde(with = "number")]
    pub top1_probability: Vec<f32>,
    /// Numbers of large values in norm outputs, before the lane changes them.
    pub norm_hits: Vec<NormHits>,
    /// The largest attention probability of a query, layer by layer, if it was asked for.
    pub attention_top1: Vec<AttentionTop1>,
}

impl LaneOutcome {
    /// The outcome of some sequences, in this order, all of which it has.
    pub fn of_sequences(&self, chosen: &[usize]) -> Self {
        fn of<T: Copy>(chosen: &[usize], values: &[T]) -> Vec<T> {
            chosen.iter().filter_map(|s| values.get(*s).copied()).collect()
        }
        let hits = |of_norm: &NormHits| NormHits {
            at: of_norm.at,
            at_least_3: of(chosen, &of_norm.at_least_3),
            at_least_6: of(chosen, &of_norm.at_least_6),
        };
        let attention = |of_layer: &AttentionTop1| AttentionTop1 {
            layer: of_layer.layer,
            probability: of(chosen, &of_layer.probability),
        };
        Self {
            name: self.name.clone(),
            changes: self.changes.clone(),
            mean_nll: of(chosen, &self.mean_nll),
            kl: of(chosen, &self.kl),
            top1_agreement: of(chosen, &self.top1_agreement),
            top1_probability: of(chosen, &self.top1_probability),
            norm_hits: self.norm_hits.iter().map(hits).collect(),
            attention_top1: self.attention_top1.iter().map(attention).collect(),
        }
    }

    /// The outcome of these sequences, then those of `other`; None if it is another lane, or one
    /// whose changes depend on which sequences there are.
    pub fn followed_by(&self, other: &Self) -> Option<Self> {
        let same = self.name == other.name && self.changes == other.changes;
        let alone = self.changes.iter().all(|change| !change.depends_on_sequences());
        let parts = (self.norm_hits.len(), self.attention_top1.len());
        if !same || !alone || parts != (other.norm_hits.len(), other.attention_top1.len()) {
            return None;
        }
        fn both<T: Copy>(a: &[T], b: &[T]) -> Vec<T> {
            [a, b].concat()
        }
        let hits = |(a, b): (&NormHits, &NormHits)| NormHits {
            at: a.at,
            at_least_3: both(&a.at_least_3, &b.at_least_3),
            at_least_6: both(&a.at_least_6, &b.at_least_6),
        };
        let attention = |(a, b): (&AttentionTop1, &AttentionTop1)| AttentionTop1 {
            layer: a.layer,
            probability: both(&a.probability, &b.probability),
        };
        Some(Self {
            name: self.name.clone(),
            changes: self.changes.clone(),
            mean_nll: both(&self.mean_nll, &other.mean_nll),
            kl: both(&self.kl, &other.kl),
            top1_agreement: both(&self.top1_agreement, &other.top1_agreement),
            top1_probability: both(&self.top1_probability, &other.top1_probability),
            norm_hits: self.norm_hits.iter().zip(&other.norm_hits).map(hits).collect(),
            attention_top1: self.attention_top1.iter().zip(&other.attention_top1).map(attention).collect(),
        })
    }
}

impl Change {
    /// Whether it is this change, with the features that were drawn.
    fn answers(&self, asked: &Self) -> bool {
        match (self, asked) {
            (
                Self::Features { to, dims: Dims::Given(drawn), at },
                Self::Features { to: asked, dims: Dims::Random { count, except, .. }, at: places },
            ) => (to, at) == (asked, places) && drawn.len() == *count && !drawn.iter().any(|dim| except.contains(dim)),
            _ => self == asked,
        }
    }

    /// Whether it depends on which sequences there are, and on their numbers.
    fn depends_on_sequences(&self) -> bool {
        match self {
            Self::Features { to, .. } => *to == NewValue::Mean,
            Self::Elements { .. } => true,
            _ => false,
        }
    }
}

/// Numbers of values in a norm output with at least the magnitudes of `HIT_THRESHOLDS`, for each
/// sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NormHits {
    #[serde(flatten)]
    pub at: SiteId,
    pub at_least_3: Vec<u32>,
    pub at_least_6: Vec<u32>,
}

/// The largest attention probability of a query, the mean over queries and heads of each sequence.
/// The input of the layer's attention is changed as the lane does, and nothing before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionTop1 {
    pub layer: usize,
    #[serde(with = "number")]
    pub probability: Vec<f32>,
}

/// A lane against the model as it is, over the same sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneComparison {
    pub name: String,
    /// Of the lane: exp of its mean loss.
    pub perplexity: Interval,
    /// That of the lane over that of the model as it is.
    pub perplexity_ratio: Interval,
    pub kl: Interval,
    pub top1_agreement: Interval,
    pub top1_probability: Interval,
    /// Mean of the largest attention probabilities over the layers that were looked at, with the
    /// lane's change.
    pub attention_top1: Option<f64>,
    /// The same without it.
    pub attention_top1_before: Option<f64>,
    /// Number of values of at least 6 in the norm outputs of the lane.
    pub hits_at_6: u64,
    /// The same of the model as it is.
    pub hits_at_6_before: u64,
    /// The paired test of the losses.
    pub test: TestResult,
    /// Its p-value, corrected for the number of lanes.
    pub p_adjusted: f64,
}
