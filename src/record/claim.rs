//! Significance tests of differences between models or settings, and the number of sequences that a
//! classification needs.

use serde::{Deserialize, Serialize};

use super::Classification;

/// The alternative hypothesis, with SciPy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alternative {
    /// Twice the smaller of the two one-sided p-values.
    TwoSided,
    /// The statistic is larger than under the null hypothesis.
    Greater,
    Less,
}

/// Options of a permutation test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestArgs {
    /// Number of random permutations. If there are fewer permutations than this in all, each is
    /// used once.
    pub n_resamples: usize,
    pub alternative: Alternative,
    pub seed: u64,
}

impl Default for TestArgs {
    fn default() -> Self {
        Self { n_resamples: 100_000, alternative: Alternative::TwoSided, seed: 0 }
    }
}

/// The result of a permutation test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// A description of the test and of the null hypothesis.
    pub test: String,
    pub statistic: f64,
    pub p_value: f64,
    pub alternative: Alternative,
    /// True if every permutation was used, so that the p-value is exact.
    pub exact: bool,
    pub n_permutations: u64,
    /// Name and value of the standardised effect size. The value is absent if nothing varies.
    pub effect: String,
    pub effect_size: Option<f64>,
    /// Number of values in each group.
    pub sizes: Vec<usize>,
}

/// A correction of p-values for multiple tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Controls the family-wise error rate: Holm 1979.
    Holm,
    /// Controls the false discovery rate: Benjamini & Hochberg 1995.
    BenjaminiHochberg,
}

/// The dependence of a classification on the number of sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequencesNeeded {
    pub num_sequences: usize,
    pub classification: Classification,
    pub confidence_level: f64,
    /// The agreement of 1, 2, … of these sequences, drawn without replacement.
    pub agreement: Vec<Agreement>,
    /// The smallest number of sequences from which on at least `confidence_level` of the draws have
    /// the classification of all sequences.
    pub sufficient: Option<usize>,
    /// The same for the passing features: from this number on at least `confidence_level` of the
    /// draws have exactly the features of all sequences.
    pub sufficient_for_features: Option<usize>,
    /// The number of sequences that would separate the position shares behind the classification
    /// from the limit; absent if one lies on the limit.
    pub decides: Option<usize>,
    /// Features whose position share cannot be separated from the limit with these sequences.
    pub undecided: Vec<UndecidedFeature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    pub num_sequences: usize,
    /// Share of draws with the classification of all sequences.
    pub same_classification: f64,
    /// Share of draws in which the same features pass as with all sequences.
    pub same_features: f64,
    /// Mean number of passing features.
    pub mean_features: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndecidedFeature {
    pub feature_dim: usize,
    pub layer_percentage: f64,
    pub seq_percentage: f64,
    /// Standard error of `seq_percentage`, over sequences.
    pub standard_error: f64,
    /// Number of sequences after which the interval around the share would exclude the limit, if
    /// share and spread stay the same; absent if the share lies on the limit.
    pub needed: Option<usize>,
}
