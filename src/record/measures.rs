//! What observers measure beside the ladders of norm outputs, as plain data. docs/measures.md has
//! each definition with its source.
//!
//! Rows are positions of all sequences in order, or, in an expert, the tokens that were routed to
//! it. Layers, sequences, positions and dimensions count from 0. Numbers that are stored as JSON
//! are f32, whose text is read back as it was.

use serde::{Deserialize, Serialize};

use super::option_types::Word;
use super::{Attribution, DimHits, Quantiles, SiteHits, SiteId, TokenHits, TokenTexts, WeightStats, number};

/// Raised when a quantity changes its meaning.
pub const MEASURES_VERSION: u32 = 1;

/// Number of first positions for which attention sinks are also measured by themselves, so that
/// texts of different lengths compare (Gu et al. 2024).
pub const SINK_POSITIONS: usize = 64;

/// A kind of measurement. Each has an observer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Extremes and counts on the ladder of thresholds, which criteria are answered from.
    Outliers,
    /// Sums of powers and extremes of every channel, and the ratio of maximum to median of rows.
    Moments,
    /// The largest values with the places where they are.
    Top,
    /// Massive activations of the residual stream, and its dimensions that stand out.
    Massive,
    /// The share of attention that each position receives.
    AttentionSinks,
    /// Load, gates and outputs of experts.
    Experts,
    /// The error that simulated quantisation of activations makes.
    QuantisationError,
    /// The weight of each down projection to which its largest input and output point.
    SuperWeights,
    /// The tokens at which features are hit.
    Hits,
    /// Extremes, kurtosis and rounding errors of the weights themselves.
    Weights,
    /// What has written the largest values of the residual stream.
    Attribution,
    /// Quantiles of |x|.
    Quantiles,
}

impl Measure {
    pub const ALL: [Self; 12] = [
        Self::Outliers,
        Self::Moments,
        Self::Top,
        Self::Massive,
        Self::AttentionSinks,
        Self::Experts,
        Self::QuantisationError,
        Self::SuperWeights,
        Self::Hits,
        Self::Weights,
        Self::Attribution,
        Self::Quantiles,
    ];
}

impl Word for Measure {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("outliers", Self::Outliers),
        ("moments", Self::Moments),
        ("top", Self::Top),
        ("massive", Self::Massive),
        ("attention_sinks", Self::AttentionSinks),
        ("experts", Self::Experts),
        ("quantisation_error", Self::QuantisationError),
        ("super_weights", Self::SuperWeights),
        ("hits", Self::Hits),
        ("weights", Self::Weights),
        ("attribution", Self::Attribution),
        ("quantiles", Self::Quantiles),
    ];
}

/// All measurements of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    pub version: u32,
    pub moments: Vec<Moments>,
    pub top: Vec<Top>,
    pub massive: Vec<Massive>,
    pub attention_sinks: Vec<AttentionSinks>,
    pub experts: Vec<Experts>,
    pub quantisation_error: Vec<QuantError>,
    pub super_weights: Vec<SuperWeight>,
    /// Tokens with hits, in the order of sites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<SiteHits>,
    /// The tokens that `hits` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_texts: Option<TokenTexts>,
    /// The linear layers that read the sites of `moments` and `quantisation_error`.
    pub modules: Vec<ModuleInput>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<WeightStats>,
    /// Names of the matrices of which `weights` has nothing or not all, because the pass did not
    /// read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread_weights: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<Quantiles>,
}

impl Measures {
    /// True if nothing was measured.
    pub fn is_empty(&self) -> bool {
        let Self { moments, top, massive, attention_sinks, experts, quantisation_error, .. } = self;
        let lists = [moments.is_empty(), top.is_empty(), massive.is_empty(), attention_sinks.is_empty()];
        let more = [
            experts.is_empty(),
            quantisation_error.is_empty(),
            self.super_weights.is_empty(),
            self.hits.is_empty(),
            self.weights.is_empty(),
            self.unread_weights.is_empty(),
            self.attribution.is_none(),
            self.quantiles.is_empty(),
        ];
        lists.iter().chain(&more).all(|empty| *empty)
    }

    /// A copy without numbers per channel and per token, which are nearly all of its size.
    pub fn clone_light(&self) -> Self {
        let moments = self.moments.iter().map(|of| Moments { channels: Channels::default(), ..of.clone() });
        let light = |of: &Experts| Experts { input_sum2: Vec::new(), coactivation: Vec::new(), ..of.clone() };
        let experts = self.experts.iter().map(light);
        let of_dim = |of: &DimHits| DimHits { tokens: TokenHits::default(), ..*of };
        let of_site = |of: &SiteHits| SiteHits { dims: of.dims.iter().map(of_dim).collect(), ..of.clone() };
        let texts = |of: &TokenTexts| TokenTexts { bytes: of.bytes, ..TokenTexts::default() };
        Self {
            moments: moments.collect(),
            experts: experts.collect(),
            hits: self.hits.iter().map(of_site).collect(),
            token_texts: self.token_texts.as_ref().map(texts),
            ..self.clone()
        }
    }
}

/// Statistics of every channel at a site of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    #[serde(flatten)]
    pub at: SiteId,
    /// Number of channels.
    pub width: usize,
    /// Number of rows: one number, or one for each expert.
    pub rows: Vec<u64>,
    /// Number of values that were NaN or infinite, and are in no sum.
    pub non_finite: u64,
    /// Ratio of the largest |x| of a row to its median |x|, over the rows whose median is not 0.
    pub max_median: RowRatio,
    pub channels: Channels,
}

/// A ratio over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowRatio {
    pub rows: u64,
    /// The mean over these rows; 0 if there is none.
    #[serde(with = "number")]
    pub mean: f32,
    #[serde(with = "number")]
    pub max: f32,
}

/// Numbers for each channel, [channels] or [experts * channels] each: extremes, and sums of powers
/// over rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Channels {
    pub max: Vec<f32>,
    pub min: Vec<f32>,
    pub sum: Vec<f64>,
    pub sum2: Vec<f64>,
    pub sumabs: Vec<f64>,
    pub sum3: Vec<f64>,
    pub sum4: Vec<f64>,
}

/// The largest values at a site of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Top {
    #[serde(flatten)]
    pub at: SiteId,
    /// By falling |x|, then by token, expert and dimension.
    pub values: Vec<TopValue>,
}

/// A value and its place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopValue {
    pub value: f32,
    pub sequence: usize,
    pub position: usize,
    pub token_id: u32,
    pub dim: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<usize>,
}

/// The residual stream after a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Massive {
    pub layer: usize,
    /// For each rule, and each way to take the median, the values that it names; without an entry
    /// it names none.
    pub activations: Vec<MassiveActivations>,
    /// For each factor, the dimensions that exceed it at the largest share of tokens.
    pub sinks: Vec<ResidualSinks>,
}

/// A rule for massive activations: |x| > above and |x| >= ratio * median |x|.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassiveRule {
    pub above: f64,
    pub ratio: f64,
}

impl MassiveRule {
    /// The rule of Sun et al. 2024.
    pub const PAPER: Self = Self { above: 100.0, ratio: 1000.0 };
}

/// The values of which the median of a rule for massive activations is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MedianOver {
    /// All values of the token.
    Token,
    /// All values of the sequence.
    Sequence,
}

/// Massive activations (Sun et al. 2024) in one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassiveActivations {
    #[serde(flatten)]
    pub rule: MassiveRule,
    pub median_over: MedianOver,
    pub count: u64,
    /// Number of tokens with at least one.
    pub tokens: u64,
    /// Dimensions with the number of their values, most first, at most eight.
    pub dims: Vec<DimCount>,
    /// Positions, ascending, at most 16.
    pub positions: Vec<usize>,
    /// The largest, at most eight.
    pub top: Vec<MassiveValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimCount {
    pub dim: usize,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassiveValue {
    #[serde(flatten)]
    pub at: TopValue,
    /// |x| divided by the median, which may be 0.
    #[serde(with = "number")]
    pub ratio: f32,
}

/// Dimensions of the residual stream with |x| > factor * rms(token).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResidualSinks {
    pub factor: f64,
    /// By falling share, then by dimension, at most eight.
    pub dims: Vec<ResidualSink>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResidualSink {
    pub dim: usize,
    /// Share of tokens beyond the factor.
    #[serde(with = "number")]
    pub share: f32,
    /// Median over tokens of |x| / rms(token).
    #[serde(with = "number")]
    pub median: f32,
    #[serde(with = "number")]
    pub max: f32,
}

/// Attention that positions receive in one layer: alpha_k is the mean, over the positions i >= k,
/// of the weight that i gives to k (Gu et al. 2024).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionSinks {
    pub layer: usize,
    /// Number of positions that were looked at, from the first on.
    pub positions: usize,
    pub sequences: usize,
    pub heads: usize,
    /// For each of the first positions, the number of heads of sequences whose alpha is above 0.3.
    pub above: Vec<u64>,
    /// Number of heads of sequences with such a position.
    pub any_above: u64,
    /// Mean alpha of position 0 over sequences, [heads].
    #[serde(with = "number")]
    pub alpha_first: Vec<f32>,
    /// Mean, over sequences, heads and positions, of the largest weight that a position gives.
    #[serde(with = "number")]
    pub top1_mean: f32,
}

/// The experts of one layer. Numbers of experts without tokens are 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experts {
    pub layer: usize,
    pub top_k: usize,
    /// Number of tokens of each expert.
    pub tokens: Vec<u64>,
    /// Sum of the routing weights of each expert.
    #[serde(with = "number")]
    pub gate_mass: Vec<f32>,
    /// Largest |y| of each expert's output, before the routing weight.
    #[serde(with = "number")]
    pub output_absmax: Vec<f32>,
    /// Where it is, if the expert has tokens.
    pub output_absmax_at: Vec<Option<TopValue>>,
    /// REAP saliency (Lasby et al. 2025): mean over the expert's tokens of routing weight * |y|.
    #[serde(with = "number")]
    pub reap: Vec<f32>,
    /// The same with the softmax over all router logits as weight.
    #[serde(with = "number")]
    pub reap_softmax: Vec<f32>,
    /// For each pair of experts the number of tokens that both have, [experts * experts].
    pub coactivation: Vec<u32>,
    /// Sum of x^2 of what each expert reads, [experts * hidden].
    pub input_sum2: Vec<f32>,
}

/// The weight of a layer's down projection in the row of its largest output and the column of its
/// largest input. In a mixture, that of the expert with the largest output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuperWeight {
    pub layer: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<usize>,
    /// The largest input of the down projection; its dimension is the column.
    pub input: TopValue,
    /// The largest output, before any routing weight; its dimension is the row.
    pub output: TopValue,
    #[serde(with = "number")]
    pub weight: f32,
    /// The part of the output that this one weight makes: weight * input at the token of the output
    /// / output.
    #[serde(with = "number")]
    pub share: f32,
}

/// A linear layer and the site that it reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInput {
    /// The name of its weight in the checkpoint, without `.weight`; empty for one kind of
    /// projection of all routed experts.
    pub module: String,
    /// The name that llama.cpp gives the weight.
    pub gguf: String,
    #[serde(flatten)]
    pub at: SiteId,
    /// For routed experts, the name with `{expert}` in place of the number; that of the stack if
    /// one tensor holds all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub routed: String,
}

impl ModuleInput {
    /// What stands in `routed` for the number of an expert.
    pub const EXPERT: &'static str = "{expert}";
}

/// Columns with a value of at least this magnitude are those that LLM.int8() keeps exact.
pub const QUANT_THRESHOLD: f32 = 6.0;

/// A format of simulated quantisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantFormat {
    /// 8-bit integers with a scale for each row.
    Int8Token,
    /// 8-bit integers with one scale.
    Int8Tensor,
    /// E4M3 with a scale for each row.
    Fp8Token,
    /// E2M1 with a power of two as scale for each 32 values.
    Mxfp4,
    /// E2M1 with an E4M3 scale for each 16 values, relative to one of the tensor.
    Nvfp4,
}

impl QuantFormat {
    pub const ALL: [Self; 5] = [Self::Int8Token, Self::Int8Tensor, Self::Fp8Token, Self::Mxfp4, Self::Nvfp4];
}

/// What simulated quantisation costs at a site of a layer. In a mixture, experts have scales of
/// their own and are added up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantError {
    #[serde(flatten)]
    pub at: SiteId,
    /// Sum of x^2.
    #[serde(with = "number")]
    pub sum_squares: f32,
    /// Share of that sum in the given dimensions.
    #[serde(with = "number")]
    pub dims_energy: f32,
    /// Number of columns with a value of at least 6.
    pub columns: u64,
    /// Share of the sum in these columns.
    #[serde(with = "number")]
    pub columns_energy: f32,
    pub formats: Vec<Quantised>,
}

/// Squared errors over the sum of x^2 of all values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantised {
    pub format: QuantFormat,
    #[serde(with = "number")]
    pub all: f32,
    /// With the given dimensions kept exact; None if the site has none of them.
    #[serde(with = "number")]
    pub without_dims: Option<f32>,
    /// With the columns kept exact that have a value of at least 6; None if there is none.
    #[serde(with = "number")]
    pub without_columns: Option<f32>,
}
