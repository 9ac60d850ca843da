//! How well a model predicts the text it was measured on.

use serde::{Deserialize, Serialize};

use super::{BootstrapArgs, Interval, number};

/// Perplexity over sequences of equal length, with intervals over sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// exp of the mean loss over all predicted tokens.
    pub perplexity: Interval,
    /// That mean: next-token loss in nats.
    pub mean_nll: Interval,
    /// exp of the mean loss of each sequence.
    #[serde(with = "number")]
    pub per_sequence: Vec<f64>,
    /// Predicted tokens: the first of a sequence is predicted by nothing.
    pub num_tokens: u64,
    pub args: BootstrapArgs,
}
