//! Comparisons of lanes with the model as it is, over the same sequences.
//!
//! Sequences are the units: losses within a text depend on each other. Intervals are of the
//! bootstrap over sequences, and the test is the permutation of signs of the differences in loss.
//! Its p-values are corrected for the number of lanes (Holm 1979). A lane whose losses are not all
//! finite has no intervals and no test, and does not count among the tests.

use super::correction::adjust;
use super::permutation::paired_test;
use super::perplexity::mean_interval;
use crate::error::{Error, Result};
use crate::record::{
    Activations, Alternative, BootstrapArgs, Correction, Interval, LaneComparison, LaneOutcome, Method, NormHits,
    TestArgs, TestResult,
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
    if let Some(bad) = base.mean_nll.iter().find(|loss| !loss.is_finite()) {
        return Err(Error::bad_argument(format!("{bad} is among the losses of the model as it is"))
            .hint("no variant can be compared with it: is the model damaged?"));
    }
    let test = TestArgs { n_resamples: args.n_resamples, alternative: Alternative::TwoSided, seed: args.seed };
    let tests = others.iter().map(|lane| {
        let finite = lane.mean_nll.iter().all(|loss| loss.is_finite());
        finite.then(|| paired_test(&wide(&lane.mean_nll), &wide(&base.mean_nll), &test)).transpose()
    });
    let tests = tests.collect::<Result<Vec<_>>>()?;
    let p_values: Vec<f64> = tests.iter().flatten().map(|test| test.p_value).collect();
    let mut adjusted = adjust(&p_values, Correction::Holm)?.into_iter();
    let of = |(lane, test): (&LaneOutcome, Option<TestResult>)| -> Result<LaneComparison> {
        let rise: Vec<f64> =
            lane.mean_nll.iter().zip(&base.mean_nll).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let plain = |values: &[f32]| over_sequences(&wide(values), args, |mean| mean);
        let p_adjusted = if test.is_some() { adjusted.next() } else { None };
        Ok(LaneComparison {
            name: lane.name.clone(),
            perplexity: over_sequences(&wide(&lane.mean_nll), args, f64::exp)?,
            perplexity_ratio: over_sequences(&rise, args, f64::exp)?,
            kl: plain(&lane.kl)?,
            top1_agreement: plain(&lane.top1_agreement)?,
            top1_probability: plain(&lane.top1_probability)?,
            attention_top1: attention(lane, lane),
            attention_top1_before: attention(lane, base),
            hits_at_6: hits(lane),
            hits_at_6_before: hits(base),
            test: test.unwrap_or_else(|| untested(lane.mean_nll.len())),
            p_adjusted: p_adjusted.unwrap_or(f64::NAN),
        })
    };
    others.iter().zip(tests).map(of).collect()
}

/// The interval of `mean_interval`, or NaN for both bounds where a sequence has no finite value.
fn over_sequences(values: &[f64], args: &BootstrapArgs, of: fn(f64) -> f64) -> Result<Interval> {
    if values.iter().all(|value| value.is_finite()) {
        return mean_interval(values, args, of);
    }
    let value = of(values.iter().sum::<f64>() / values.len() as f64);
    Ok(Interval { value, low: f64::NAN, high: f64::NAN, method: Method::Percentile })
}

/// The place of a test of `sequences` pairs that have no difference.
fn untested(sequences: usize) -> TestResult {
    TestResult {
        test: "paired difference of means".into(),
        statistic: f64::NAN,
        p_value: f64::NAN,
        alternative: Alternative::TwoSided,
        exact: false,
        n_permutations: 0,
        effect: "cohen_dz".into(),
        effect_size: None,
        sizes: vec![sequences, sequences],
    }
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

    /// Losses of the model as it is, in sixteenths, and their rise in a lane, in parts of 64: all
    /// exact in f32, with ties in magnitude.
    fn base(n: usize) -> Vec<f32> {
        (0..n).map(|s| 3.0 + ((s * 37) % 11) as f32 / 16.0).collect()
    }

    fn rise(l: usize, s: usize) -> f32 {
        (((l * 29 + s * 17 + l * s) % 23) as f32 - 9.0) / 64.0
    }

    /// A record with `count` lanes whose losses rise by `of(lane, sequence)`.
    fn record(n: usize, count: usize, of: impl Fn(usize, usize) -> f32) -> Activations {
        let mut acts = Dense::filled(1, n, 5, 2, 0.0).activations(&[6.0]);
        let base = base(n);
        acts.lanes.push(lane("baseline", &base));
        for l in 1..=count {
            let losses: Vec<f32> = base.iter().enumerate().map(|(s, loss)| loss + of(l, s)).collect();
            acts.lanes.push(lane(&format!("lane {l}"), &losses));
        }
        acts
    }

    fn near(got: f64, want: f64, within: f64) -> bool {
        (got - want).abs() <= within
    }

    // import numpy as np; from scipy import stats                       # NumPy 2.4.6, SciPy 1.17.1
    // def rise(l): return np.array([((l*29+s*17+l*s)%23-9+(l%7)*5)/64 for s in range(12)])
    // p = [stats.permutation_test((rise(l),), lambda x, axis: np.mean(x, axis=axis),
    //      permutation_type="samples", n_resamples=10000, vectorized=True).pvalue
    //      for l in range(1, 51)]
    // print([round(p * 4096) for p in p])
    // Holm: in rising order the largest of min(1, (50 - rank) p) so far.
    const P_VALUES: [u64; 50] = [
        44, 2, 2, 2, 2, 2, 3984, 32, 2, 2, 2, 2, 2, 3892, 32, 2, 2, 2, 2, 2, 3892, 24, 2, 2, 2, 2, 2, 3984, 2, 2, 2, 2,
        2, 2, 1436, 24, 2, 2, 2, 2, 2, 1440, 32, 2, 2, 2, 2, 2, 1128, 32,
    ];
    const ADJUSTED: [u64; 50] = [
        384, 100, 100, 100, 100, 100, 4096, 384, 100, 100, 100, 100, 100, 4096, 384, 100, 100, 100, 100, 100, 4096,
        336, 100, 100, 100, 100, 100, 4096, 100, 100, 100, 100, 100, 100, 4096, 336, 100, 100, 100, 100, 100, 4096,
        384, 100, 100, 100, 100, 100, 4096, 384,
    ];

    #[test]
    fn tests_of_fifty_lanes_are_those_of_scipy_after_holm() {
        let acts = record(12, 50, |l, s| rise(l, s) + (l % 7) as f32 * 5.0 / 64.0);
        let rows = compare_lanes(&acts, &BootstrapArgs::default()).unwrap();
        for (row, (p, adjusted)) in rows.iter().zip(P_VALUES.into_iter().zip(ADJUSTED)) {
            assert!(row.test.exact && row.test.n_permutations == 4096, "{row:?}");
            assert!(near(row.test.p_value, p as f64 / 4096.0, 1e-12), "{}: {}, not {p}", row.name, row.test.p_value);
            assert!(near(row.p_adjusted, adjusted as f64 / 4096.0, 1e-12), "{}: {}", row.name, row.p_adjusted);
        }
        assert_eq!(rows.len(), 50);
        // A lane that rises by the same everywhere has an interval of one number.
        let same = &rows[5].perplexity_ratio;
        assert!([same.value, same.low, same.high].into_iter().all(|got| near(got, 1.701_057, 1e-6)), "{same:?}");
        assert_eq!(same.method, Method::Percentile);
    }

    // for l in 1, 2, 7: for m in "percentile", "BCa": for x in rise(l), base + rise(l):
    //     print(stats.bootstrap((x,), lambda x, axis: np.exp(np.mean(x, axis=axis)), method=m,
    //           n_resamples=200000, rng=np.random.default_rng(0)).confidence_interval)
    // with rise(l) = [((l*29+s*17+l*s)%23-9)/64 for s in range(9)], base = [3+s*37%11/16 …].
    const BOUNDS: [(usize, Method, [f64; 4]); 6] = [
        (1, Method::Percentile, [0.9726, 1.11365, 24.3966, 33.2884]),
        (1, Method::Bca, [0.97092, 1.11365, 24.3543, 32.8863]),
        (2, Method::Percentile, [0.94105, 1.05713, 23.564, 31.599]),
        (2, Method::Bca, [0.94268, 1.05896, 23.401, 31.4348]),
        (7, Method::Percentile, [0.92646, 1.12335, 24.6093, 31.9299]),
        (7, Method::Bca, [0.92807, 1.12531, 24.7808, 32.0409]),
    ];

    #[test]
    fn intervals_of_ratios_and_perplexities_are_those_of_scipy() {
        let acts = record(9, 7, rise);
        let args = BootstrapArgs { n_resamples: 200_000, ..BootstrapArgs::default() };
        for method in [Method::Percentile, Method::Bca] {
            let rows = compare_lanes(&acts, &BootstrapArgs { method, ..args.clone() }).unwrap();
            for (l, _, [low, high, perplexity_low, perplexity_high]) in BOUNDS.iter().filter(|case| case.1 == method) {
                let (ratio, perplexity) = (&rows[l - 1].perplexity_ratio, &rows[l - 1].perplexity);
                assert!(near(ratio.low, *low, 0.003) && near(ratio.high, *high, 0.003), "{l} {ratio:?}");
                let within = near(perplexity.low, *perplexity_low, 0.1) && near(perplexity.high, *perplexity_high, 0.1);
                assert!(within, "{l} {perplexity:?}");
            }
        }
    }

    #[test]
    fn two_sequences_have_intervals_and_a_test_that_cannot_be_significant() {
        let rows = compare_lanes(&record(2, 7, rise), &BootstrapArgs::default()).unwrap();
        // SciPy: 2 of 4 signs, or all of them; bounds are the two ratios.
        let p = |l: usize| rows[l - 1].test.p_value;
        assert_eq!((p(1), p(2), p(7)), (0.5, 1.0, 0.5));
        let ratio = &rows[0].perplexity_ratio;
        assert!(near(ratio.low, 0.8825, 1e-4) && near(ratio.high, 0.95421, 1e-4), "{ratio:?}");
        let one = compare_lanes(&record(1, 1, rise), &BootstrapArgs::default()).unwrap_err();
        assert!(one.message.contains("2 sequences") && one.hint.is_some(), "{one:?}");
    }

    #[test]
    fn a_lane_with_losses_that_are_not_finite_does_not_hinder_the_others() {
        let spoilt = |l: usize, s: usize| match (l, s) {
            (2, 3) => f32::NAN,
            (3, 1) => f32::INFINITY,
            _ => rise(l, s),
        };
        let mut acts = record(9, 4, spoilt);
        acts.lanes[2].kl[0] = f32::NAN;
        let rows = compare_lanes(&acts, &BootstrapArgs::default()).unwrap();
        let clean = record(9, 4, rise);
        let (base, first, last) = (clean.lanes[0].clone(), clean.lanes[1].clone(), clean.lanes[4].clone());
        let alone = Activations { lanes: vec![base, first, last], ..clean };
        let alone = compare_lanes(&alone, &BootstrapArgs::default()).unwrap();
        assert_eq!((&rows[0], &rows[3]), (&alone[0], &alone[1]), "the others are as without them");
        for (row, value) in [(&rows[1], f64::NAN), (&rows[2], f64::INFINITY)] {
            assert_eq!(row.perplexity_ratio.value.to_bits(), value.to_bits(), "{row:?}");
            assert!(row.perplexity.low.is_nan() && row.test.p_value.is_nan() && row.p_adjusted.is_nan(), "{row:?}");
        }
        assert!(rows[1].kl.value.is_nan() && rows[2].kl.value == 0.25);
        acts.lanes[0].mean_nll[0] = f32::NAN;
        let refused = compare_lanes(&acts, &BootstrapArgs::default()).unwrap_err();
        assert!(refused.message.contains("the model as it is"), "{refused:?}");
    }
}
