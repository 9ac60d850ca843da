//! Confidence intervals from bootstrap replicates: percentile and BCa, with the arithmetic of
//! `scipy.stats.bootstrap`.
//!
//! BCa ("bias-corrected and accelerated"): Efron 1987, JASA 82; Efron & Tibshirani, An Introduction
//! to the Bootstrap, sections 14.3 and 15.4, equation 15.36.

use crate::record::{Interval, Method};

use super::{linear_quantile, normal_cdf, normal_quantile};

/// A statistic on the full sample, on the resamples, and on the jackknife samples, which leave out
/// one element each.
#[derive(Clone, Debug, PartialEq)]
pub struct Replicates {
    pub observed: f64,
    pub resampled: Vec<f64>,
    pub jackknife: Vec<f64>,
}

/// The two-sided interval at `confidence_level` (0 … 1) by `method`, or by percentile if BCa is
/// undefined.
pub fn interval(replicates: &Replicates, confidence_level: f64, method: Method) -> Interval {
    let mut sorted = replicates.resampled.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let alpha = (1.0 - confidence_level) / 2.0;
    let corrected = match method {
        Method::Percentile => None,
        Method::Bca => bca_probabilities(&sorted, replicates, alpha),
    };
    let (method, (lower, upper)) = match corrected {
        Some(probabilities) => (Method::Bca, probabilities),
        None => (Method::Percentile, (alpha, 1.0 - alpha)),
    };
    let quantile = |p| linear_quantile(sorted.len() as u64, p, |rank| sorted[rank as usize]);
    Interval { value: replicates.observed, low: quantile(lower), high: quantile(upper), method }
}

/// The probabilities at which BCa evaluates the quantiles of the bootstrap distribution. None where
/// SciPy returns NaN (all replicates on one side of the observed value, or a constant jackknife),
/// and where the acceleration would reverse the order of the bounds.
fn bca_probabilities(sorted: &[f64], replicates: &Replicates, alpha: f64) -> Option<(f64, f64)> {
    let bias = normal_quantile(mean_percentile(sorted, replicates.observed));
    let acceleration = acceleration(&replicates.jackknife)?;
    let corrected = |p| {
        let shifted = bias + normal_quantile(p);
        let scale = 1.0 - acceleration * shifted;
        (shifted.is_finite() && scale > 0.0).then(|| normal_cdf(bias + shifted / scale))
    };
    Some((corrected(alpha)?, corrected(1.0 - alpha)?))
}

/// The share of values below `score`, counting equal values half: `percentileofscore(kind="mean")`.
fn mean_percentile(sorted: &[f64], score: f64) -> f64 {
    let below = sorted.partition_point(|&value| value < score);
    let not_above = sorted.partition_point(|&value| value <= score);
    (below + not_above) as f64 / (2 * sorted.len()) as f64
}

/// a = 1/6 sum U^3 / (sum U^2)^(3/2) over the jackknife influences U.
fn acceleration(jackknife: &[f64]) -> Option<f64> {
    // An exact comparison: the rounded mean of equal values may differ from them, and the
    // acceleration would be made of rounding errors.
    if jackknife.iter().all(|&value| value == jackknife[0]) {
        return None;
    }
    let n = jackknife.len() as f64;
    let mean = jackknife.iter().sum::<f64>() / n;
    let influences = || jackknife.iter().map(|value| (n - 1.0) * (mean - value));
    let cubes = influences().map(|u| u.powi(3)).sum::<f64>() / n.powi(3);
    let squares = influences().map(|u| u.powi(2)).sum::<f64>() / n.powi(2);
    let acceleration = 1.0 / 6.0 * cubes / squares.powf(1.5);
    acceleration.is_finite().then_some(acceleration)
}

#[cfg(test)]
mod tests {
    use super::super::dense::uniform;
    use super::*;

    /// A statistic of `n` transformed uniform numbers with 999 resamples, all from one generator.
    fn replicates(seed: u64, n: usize, statistic: fn(&[f64]) -> f64, shape: fn(f64) -> f64) -> Replicates {
        let mut next = uniform(seed);
        let sample: Vec<f64> = (0..n).map(|_| shape(next())).collect();
        let mut resample = || (0..n).map(|_| sample[(next() * n as f64) as usize]).collect::<Vec<_>>();
        let without = |left_out| [&sample[..left_out], &sample[left_out + 1..]].concat();
        Replicates {
            observed: statistic(&sample),
            resampled: (0..999).map(|_| statistic(&resample())).collect(),
            jackknife: (0..n).map(|left_out| statistic(&without(left_out))).collect(),
        }
    }

    fn mean(sample: &[f64]) -> f64 {
        sample.iter().sum::<f64>() / sample.len() as f64
    }

    fn max(sample: &[f64]) -> f64 {
        sample.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    fn assert_interval(replicates: &Replicates, confidence_level: f64, method: Method, low: f64, high: f64) {
        let got = interval(replicates, confidence_level, method);
        assert_eq!((got.value, got.method), (replicates.observed, method));
        assert!((got.low - low).abs() < 1e-13 && (got.high - high).abs() < 1e-13, "{got:?} is not {low} … {high}");
    }

    // import numpy as np  # NumPy 2.4.6, SciPy 1.17.1
    // from scipy import stats
    // from scipy.stats._resampling import BootstrapResult
    //
    // def lcg(state):  # = dense::uniform
    //     while True:
    //         state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    //         yield (state >> 11) / 2**53
    //
    // def case(seed, n, statistic, level, shape):
    //     u = lcg(seed)
    //     x = np.array([shape(next(u)) for _ in range(n)])
    //     pick = lambda: x[[int(next(u) * n) for _ in range(n)]]
    //     theta = np.array([statistic(pick(), axis=-1) for _ in range(999)])
    //     done = BootstrapResult(None, theta, None)  # SciPy reads only the distribution
    //     for method in ("percentile", "bca"):
    //         ci = stats.bootstrap((x,), statistic, n_resamples=0, confidence_level=level,
    //                              method=method, bootstrap_result=done).confidence_interval
    //         print(method, repr(float(ci.low)), repr(float(ci.high)))
    //
    // case(1, 16, np.mean, 0.95, lambda u: u**3)
    // case(2, 16, np.max, 0.90, lambda u: u)
    // case(3, 5, np.mean, 0.99, lambda u: np.floor(4 * u))
    // case(4, 16, np.mean, 0.95, lambda u: 0.25)                            # bca is nan
    #[test]
    fn intervals_are_those_of_scipy() {
        let skewed = replicates(1, 16, mean, |u| u.powi(3));
        assert_interval(&skewed, 0.95, Method::Percentile, 0.12507771664137984, 0.31498113562921126);
        assert_interval(&skewed, 0.95, Method::Bca, 0.12750134585519082, 0.3188313970574962);
        let largest = replicates(2, 16, max, |u| u);
        assert_interval(&largest, 0.90, Method::Percentile, 0.8582289998602459, 0.9503024640857918);
        assert_interval(&largest, 0.90, Method::Bca, 0.9171161254706482, 0.9503024640857918);
        let ties = replicates(3, 5, mean, |u| (4.0 * u).floor());
        assert_interval(&ties, 0.99, Method::Percentile, 0.4, 2.0);
        assert_interval(&ties, 0.99, Method::Bca, 0.3856173662666774, 2.0);
    }

    #[test]
    fn bca_of_what_does_not_vary_is_percentile() {
        let constant = replicates(4, 16, mean, |_| 0.1);
        let got = interval(&constant, 0.95, Method::Bca);
        assert_eq!(got.method, Method::Percentile);
        assert_eq!((got.low, got.high), (constant.observed, constant.observed));
    }

    #[test]
    fn bca_with_all_replicates_on_one_side_is_percentile() {
        let one_sided =
            Replicates { observed: 5.0, resampled: vec![1.0, 2.0, 3.0, 4.0], jackknife: vec![4.0, 5.0, 5.0, 3.0] };
        let got = interval(&one_sided, 0.5, Method::Bca);
        assert_eq!((got.method, got.low, got.high), (Method::Percentile, 1.75, 3.25));
    }

    #[test]
    fn bca_that_would_turn_the_scale_around_is_percentile() {
        // Bias and level are so large that 1 - a (z0 + z) < 0. SciPy returns bounds in the wrong
        // order here.
        let mut resampled = vec![0.0; 100_000];
        resampled.extend([2.0, 3.0]);
        let jackknife = [vec![0.0], vec![1.0; 999]].concat();
        let skewed = Replicates { observed: 1.0, resampled, jackknife };
        assert_eq!(interval(&skewed, 0.999, Method::Bca).method, Method::Percentile);
        assert_eq!(interval(&skewed, 0.5, Method::Bca).method, Method::Bca);
    }
}
