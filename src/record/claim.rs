//! Tests of claims: between models or settings, and how many sequences would decide a classification.

use serde::{Deserialize, Serialize};

use super::Classification;

/// Which differences count against the null hypothesis; SciPy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alternative {
    /// Twice the smaller of the two one-sided p-values.
    TwoSided,
    /// The statistic is larger than chance.
    Greater,
    Less,
}

/// How a permutation test is carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestArgs {
    /// Random permutations, where there are more than these in all; else each is taken once.
    pub n_resamples: usize,
    pub alternative: Alternative,
    pub seed: u64,
}

impl Default for TestArgs {
    fn default() -> Self {
        Self { n_resamples: 100_000, alternative: Alternative::TwoSided, seed: 0 }
    }
}

/// What a permutation test says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// What was tested, and against what.
    pub test: String,
    pub statistic: f64,
    pub p_value: f64,
    pub alternative: Alternative,
    /// Every permutation was taken: the p-value is exact.
    pub exact: bool,
    pub n_permutations: u64,
    /// Name and value of the standardised size of the effect; absent where nothing varies.
    pub effect: String,
    pub effect_size: Option<f64>,
    /// Values in each group.
    pub sizes: Vec<usize>,
}

/// How corrected p-values are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Controls the chance of any false claim: Holm 1979.
    Holm,
    /// Controls the share of false claims: Benjamini & Hochberg 1995.
    BenjaminiHochberg,
}

/// How a classification depends on the number of sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequencesNeeded {
    pub num_sequences: usize,
    pub classification: Classification,
    pub confidence_level: f64,
    /// For 1, 2, … sequences of these, drawn without replacement.
    pub agreement: Vec<Agreement>,
    /// The fewest from which on at least `confidence_level` of the draws have the classification of all of them.
    pub sufficient: Option<usize>,
    /// How many would tell the position shares behind the classification from the limit; absent where they lie on it.
    pub decides: Option<usize>,
    /// Features whose position share these sequences do not tell from the limit.
    pub undecided: Vec<UndecidedFeature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    pub num_sequences: usize,
    /// Share of draws with the classification of all sequences.
    pub same_classification: f64,
    /// Mean number of passing features.
    pub mean_features: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndecidedFeature {
    pub feature_dim: usize,
    pub layer_percentage: f64,
    pub seq_percentage: f64,
    /// Of that share, over sequences.
    pub standard_error: f64,
    /// Sequences after which the interval around it would leave out the limit, if share and spread stay; absent where
    /// it lies on the limit.
    pub needed: Option<usize>,
}
