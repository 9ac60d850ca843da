//! How long a text must be until every expert has some number of tokens.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::record::{Activations, number};

/// The probability with which an expert is to have its tokens.
const CERTAINTY: f64 = 0.95;

/// The largest number of tokens per expert that is answered.
const MOST: u64 = 100_000;

/// The number of tokens until every expert has at least some. docs/measures.md has the definition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokensNeeded {
    /// The number that every expert is to have.
    pub per_expert: u64,
    /// Number of tokens that were measured, and of mixtures.
    pub measured: u64,
    pub layers: usize,
    /// The expert with the fewest tokens of those that have any.
    pub layer: usize,
    pub expert: usize,
    pub tokens: u64,
    /// The number of tokens after which this expert has enough on average.
    pub expected: u64,
    /// The number after which it has enough with a probability of 95 %.
    #[serde(with = "number")]
    pub likely: f64,
    /// Experts without any token. If there are some, the numbers above are too small.
    pub unseen: Vec<Unseen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unseen {
    pub layer: usize,
    pub expert: usize,
}

/// # Errors
/// `not_found` if the record has no experts, `bad_argument` for a number below 1 or above 100,000.
pub fn tokens_needed_per_expert(acts: &Activations, per_expert: i64) -> Result<TokensNeeded> {
    let Some(per_expert) = u64::try_from(per_expert).ok().filter(|n| (1..=MOST).contains(n)) else {
        return Err(Error::bad_argument(format!("tokens_needed_per_expert: {per_expert} is not 1 to {MOST} tokens"))
            .hint("128 tokens per expert are usual for calibration"));
    };
    let measured = (acts.num_sequences * acts.sequence_length) as u64;
    let of_layer = |of: &crate::record::ExpertCoverage| {
        let layer = of.layer;
        of.tokens_per_expert.iter().enumerate().map(|(expert, tokens)| (*tokens, layer, expert)).collect::<Vec<_>>()
    };
    let all: Vec<(u64, usize, usize)> = acts.expert_coverage.iter().flat_map(of_layer).collect();
    let Some(&(tokens, layer, expert)) = all.iter().filter(|(tokens, _, _)| *tokens > 0).min() else {
        return Err(Error::not_found("tokens_needed_per_expert: the record has no experts with tokens")
            .hint("the model is not a mixture, or only its last layer is one: extract with logits: true"));
    };
    let per_token = tokens as f64 / measured as f64;
    let unseen = all.iter().filter(|(tokens, _, _)| *tokens == 0);
    Ok(TokensNeeded {
        per_expert,
        measured,
        layers: acts.expert_coverage.len(),
        layer,
        expert,
        tokens,
        expected: (per_expert as f64 / per_token).ceil() as u64,
        likely: (mean_for(per_expert) / per_token).ceil(),
        unseen: unseen.map(|(_, layer, expert)| Unseen { layer: *layer, expert: *expert }).collect(),
    })
}

/// The mean of a Poisson distribution that is at least `n` with a probability of 95 %.
fn mean_for(n: u64) -> f64 {
    let (mut low, mut high) = (n as f64, 3.0 + n as f64 + 4.0 * (n as f64).sqrt());
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match less_than(n, middle) > 1.0 - CERTAINTY {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// The probability that a Poisson variable of this mean is less than `n`.
fn less_than(n: u64, mean: f64) -> f64 {
    let mut logarithm = -mean;
    let mut sum = logarithm.exp();
    for k in 1..n {
        logarithm += (mean / k as f64).ln();
        sum += logarithm.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ExpertCoverage;
    use crate::stats::dense::Dense;

    #[test]
    fn the_mean_is_that_of_tables() {
        // Half of the 95th percentile of chi-squared with 2 n degrees of freedom.
        for (n, mean) in [(1, 2.995_732), (5, 9.153_519), (10, 15.705_22), (50, 62.171_06)] {
            assert!((mean_for(n) / mean - 1.0).abs() < 1e-5, "{n}: {}", mean_for(n));
        }
    }

    #[test]
    fn the_rarest_expert_decides_and_those_without_tokens_are_named() {
        let mut acts = Dense::filled(2, 1, 100, 4, 0.0).activations(&[1.0]);
        assert!(tokens_needed_per_expert(&acts, 4).unwrap_err().message.contains("no experts"));
        let coverage = |layer, tokens: &[u64]| ExpertCoverage { layer, tokens_per_expert: tokens.to_vec() };
        acts.expert_coverage = vec![coverage(0, &[50, 30, 20]), coverage(1, &[75, 0, 25])];
        let measured = (acts.num_sequences * acts.sequence_length) as u64;
        let needed = tokens_needed_per_expert(&acts, 4).unwrap();
        assert_eq!((needed.layer, needed.expert, needed.tokens, needed.measured), (0, 2, 20, measured));
        // Four tokens at 20 of `measured`.
        assert_eq!(needed.expected, 4 * measured / 20);
        assert!(needed.likely > needed.expected as f64);
        assert_eq!(needed.unseen, [Unseen { layer: 1, expert: 1 }]);
        assert!(tokens_needed_per_expert(&acts, 0).is_err());
    }
}
