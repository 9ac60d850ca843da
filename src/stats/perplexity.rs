//! Perplexity with intervals, from the mean next-token loss of every sequence.
//!
//! exp of the mean negative log-likelihood per token (Jelinek et al. 1977). All sequences have the
//! same length, so that the mean over tokens is the mean over sequences. Sequences are resampled,
//! because losses within a text depend on each other.

use crate::error::{Error, Result};
use crate::record::{Activations, BootstrapArgs, Interval, Perplexity};

use super::bootstrap::check_args;
use super::draws::Draws;
use super::integrity::check_record;
use super::interval;

/// Checks that sequences of this number and length have a perplexity with intervals, for any model.
pub fn check_perplexity(num_sequences: usize, sequence_length: usize, args: &BootstrapArgs) -> Result<()> {
    if sequence_length < 2 {
        return Err(Error::bad_argument(format!(
            "a perplexity needs sequences of 2 tokens, these have {sequence_length}"
        ))
        .hint("a loss is that of the next token: load longer sequences"));
    }
    check_args(num_sequences, args)
}

/// The perplexity of a record with losses (`logits: true`) of at least two sequences.
pub fn perplexity(acts: &Activations, args: &BootstrapArgs) -> Result<Perplexity> {
    let losses = acts.mean_nll.as_deref().filter(|losses| !losses.is_empty()).ok_or_else(|| {
        Error::bad_argument("this record has no losses")
            .hint("extract with `logits: true`, and with sequences of two tokens or more")
    })?;
    check_record(acts, &acts.all)?;
    let losses: Vec<f64> = losses.iter().map(|&loss| f64::from(loss)).collect();
    let mean_nll = mean_interval(&losses, args, |mean| mean)?;
    Ok(Perplexity {
        perplexity: mean_interval(&losses, args, f64::exp)?,
        mean_nll,
        per_sequence: losses.iter().map(|loss| loss.exp()).collect(),
        num_tokens: (acts.num_sequences * (acts.sequence_length - 1)) as u64,
        args: args.clone(),
    })
}

/// The mean of one number per sequence, or a function of that mean, with its interval.
pub fn mean_interval(values: &[f64], args: &BootstrapArgs, of: fn(f64) -> f64) -> Result<Interval> {
    check_args(values.len(), args)?;
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::bad_argument(format!("{bad} is among the values of the sequences"))
            .hint("a mean needs finite numbers: is the model damaged?"));
    }
    let draws = Draws::new(values.len(), args.n_resamples, args.seed);
    let mean = |sample: &[u32]| sample.iter().map(|&s| values[s as usize]).sum::<f64>() / sample.len() as f64;
    let replicates = draws.replicates(draws.samples().map(|sample| of(mean(sample))).collect());
    Ok(interval(&replicates, args.confidence_level, args.method))
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;
    use crate::record::Method;

    fn record(losses: Option<Vec<f32>>) -> Activations {
        let mut acts = Dense::filled(1, 4, 5, 2, 0.0).activations(&[6.0]);
        acts.mean_nll = losses;
        acts
    }

    #[test]
    fn losses_of_other_sequences_are_refused_before_they_are_resampled() {
        let error = perplexity(&record(Some(vec![1.0; 1 << 20])), &BootstrapArgs::default()).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::Corrupt);
        let most = mean_interval(&vec![1.0; 1 << 20], &BootstrapArgs::default(), |mean| mean).unwrap_err();
        assert!(most.message.contains("draws"), "{}", most.message);
    }

    #[test]
    fn is_the_exponential_of_the_mean_loss() {
        let args = BootstrapArgs { method: Method::Percentile, ..BootstrapArgs::default() };
        let got = perplexity(&record(Some(vec![1.0, 2.0, 3.0, 2.5])), &args).unwrap();
        assert_eq!((got.mean_nll.value, got.num_tokens), (2.125, 16));
        assert_eq!(got.perplexity.value, 2.125f64.exp());
        assert_eq!(got.per_sequence[1], 2f64.exp());
        // The exponential is monotone, so that the same resample gives both bounds.
        assert!((got.perplexity.low.ln() - got.mean_nll.low).abs() < 0.01);
        assert!(got.perplexity.low < got.perplexity.value && got.perplexity.value < got.perplexity.high);
    }

    // import numpy as np; from scipy import stats  # NumPy 2.4.6, SciPy 1.17.1
    // x = np.array([3.1, 2.7, 3.4, 2.9, 3.3, 3.0, 2.2, 3.8, 3.05, 2.95,
    //               3.6, 2.5, 3.15, 2.85, 3.25, 3.45])
    // for m in "percentile", "BCa":
    //     print(stats.bootstrap((x,), np.mean, n_resamples=200000, method=m,
    //                           rng=np.random.default_rng(0)).confidence_interval)
    const SCIPY: [(Method, f64, f64); 2] = [(Method::Percentile, 2.878125, 3.2625), (Method::Bca, 2.871875, 3.25625)];

    #[test]
    fn intervals_of_a_mean_are_those_of_scipy() {
        let values = [3.1, 2.7, 3.4, 2.9, 3.3, 3.0, 2.2, 3.8, 3.05, 2.95, 3.6, 2.5, 3.15, 2.85, 3.25, 3.45];
        let args = BootstrapArgs { n_resamples: 200_000, ..BootstrapArgs::default() };
        for (method, low, high) in SCIPY {
            let got = mean_interval(&values, &BootstrapArgs { method, ..args.clone() }, |mean| mean).unwrap();
            assert!((got.low - low).abs() < 0.005 && (got.high - high).abs() < 0.005, "{got:?}");
        }
    }

    #[test]
    fn a_record_without_losses_is_refused() {
        for losses in [None, Some(vec![])] {
            let refused = perplexity(&record(losses), &BootstrapArgs::default()).unwrap_err();
            assert!(refused.hint.unwrap().contains("logits: true"));
        }
        let refused = perplexity(&record(Some(vec![1.0, f32::NAN, 1.0, 1.0])), &BootstrapArgs::default());
        assert!(refused.unwrap_err().message.contains("NaN"));
    }
}
