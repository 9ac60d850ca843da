//! Comparisons of lanes with the model as it is, over the same sequences.
//!
//! Sequences are the units: losses within a text depend on each other. Intervals are of the
//! bootstrap over sequences, and the test is the permutation of signs of the differences in loss.
//! Its p-values are corrected for the number of lanes (Holm 1979).

use super::correction::adjust;
use super::permutation::paired_test;
use super::perplexity::mean_interval;
use crate::error::{Error, Result};
use crate::record::{
    Activations, Alternative, BootstrapArgs, Correction, LaneComparison, LaneOutcome, NormHits, TestArgs,
};

/// Compares every lane of a record with the first, the model as it is.
///
/// # Errors
/// `bad_argument` if the record has no lanes, sequences of one token, or too few sequences.
pub fn compare_lanes(acts: &Activations, args: &BootstrapArgs) -> Result<Vec<LaneComparison>> {
    let Some((base, others)) = acts.lanes.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err(Error::bad_argument("the record has no lanes")
            .hint("give some: model.extract(tokens, #{ lanes: [#{ name: \"…\", changes: […] }] })"));
    };
    if base.mean_nll.is_empty() {
        return Err(Error::bad_argument("sequences of one token have no loss to compare").hint("use longer ones"));
    }
    let test = TestArgs { n_resamples: args.n_resamples, alternative: Alternative::TwoSided, seed: args.seed };
    let tests = others.iter().map(|lane| paired_test(&wide(&lane.mean_nll), &wide(&base.mean_nll), &test));
    let tests = tests.collect::<Result<Vec<_>>>()?;
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    let adjusted = adjust(&p_values, Correction::Holm)?;
    let of = |((lane, test), adjusted): ((&LaneOutcome, _), f64)| -> Result<LaneComparison> {
        let rise: Vec<f64> =
            lane.mean_nll.iter().zip(&base.mean_nll).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let plain = |values: &[f32]| mean_interval(&wide(values), args, |mean| mean);
        Ok(LaneComparison {
            name: lane.name.clone(),
            perplexity: mean_interval(&wide(&lane.mean_nll), args, f64::exp)?,
            perplexity_ratio: mean_interval(&rise, args, f64::exp)?,
            kl: plain(&lane.kl)?,
            top1_agreement: plain(&lane.top1_agreement)?,
            top1_probability: plain(&lane.top1_probability)?,
            attention_top1: attention(lane, lane),
            attention_top1_before: attention(lane, base),
            hits_at_6: hits(lane),
            hits_at_6_before: hits(base),
            test,
            p_adjusted: adjusted,
        })
    };
    others.iter().zip(tests).zip(adjusted).map(of).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The mean of `of`'s largest attention probabilities over the layers in which `lane` changes
/// attention, if these were looked at.
fn attention(lane: &LaneOutcome, of: &LaneOutcome) -> Option<f64> {
    let changed = |layer: usize| lane.attention_top1.iter().any(|own| own.layer == layer);
    let values: Vec<f64> =
        of.attention_top1.iter().filter(|of| changed(of.layer)).flat_map(|of| wide(&of.probability)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Number of values of at least 6 in all norm outputs.
fn hits(lane: &LaneOutcome) -> u64 {
    let of = |norm: &NormHits| norm.at_least_6.iter().map(|count| u64::from(*count)).sum::<u64>();
    lane.norm_hits.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;

    fn lane(name: &str, mean_nll: &[f32]) -> LaneOutcome {
        let mean_nll = mean_nll.to_vec();
        let kl = vec![0.25; mean_nll.len()];
        LaneOutcome {
            name: name.into(),
            changes: vec![],
            top1_agreement: kl.clone(),
            top1_probability: kl.clone(),
            kl,
            mean_nll,
            norm_hits: vec![],
            attention_top1: vec![],
        }
    }

    #[test]
    fn lanes_are_compared_pair_by_pair_and_corrected_for_their_number() {
        let mut acts = Dense::filled(1, 6, 5, 2, 0.0).activations(&[6.0]);
        let base = [3.0f32, 3.5, 2.5, 4.0, 3.25, 2.75];
        let moved = |by: &[f32]| base.iter().zip(by.iter().cycle()).map(|(a, b)| a + b).collect::<Vec<_>>();
        acts.lanes =
            vec![lane("baseline", &base), lane("worse", &moved(&[0.5, 0.625])), lane("same", &moved(&[0.125, -0.125]))];
        let rows = compare_lanes(&acts, &BootstrapArgs::default()).unwrap();
        assert_eq!(rows.iter().map(|row| &row.name[..]).collect::<Vec<_>>(), ["worse", "same"]);
        // All 64 signs: two of them are as extreme.
        assert!((rows[0].test.p_value - 2.0 / 64.0).abs() < 1e-12 && rows[0].test.exact);
        assert!((rows[0].p_adjusted - 4.0 / 64.0).abs() < 1e-12);
        assert_eq!(rows[1].p_adjusted, 1.0);
        assert!((rows[0].perplexity_ratio.value - 0.5625f64.exp()).abs() < 1e-6);
        assert!(rows[0].perplexity_ratio.low > 1.6 && rows[1].perplexity_ratio.low < 1.0);
        assert_eq!((rows[0].kl.value, rows[0].attention_top1), (0.25, None));
        acts.lanes.truncate(1);
        assert!(compare_lanes(&acts, &BootstrapArgs::default()).unwrap_err().message.contains("no lanes"));
    }
}
