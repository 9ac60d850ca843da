//! Perplexity: how well a model predicts its token sequences.

use serde::{Deserialize, Serialize};

use super::{BootstrapArgs, Interval, number};

/// Perplexity over sequences of equal length, with intervals over sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// exp of the mean loss over all predicted tokens.
    pub perplexity: Interval,
    /// Mean next-token loss in nats.
    pub mean_nll: Interval,
    /// exp of the mean loss of each sequence.
    #[serde(with = "number")]
    pub per_sequence: Vec<f64>,
    /// Number of predicted tokens. The first token of a sequence is not predicted.
    pub num_tokens: u64,
    pub args: BootstrapArgs,
}
