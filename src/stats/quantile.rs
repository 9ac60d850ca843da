//! Sample quantiles: Hyndman & Fan 1996, definition 7, the "linear" method of NumPy and SciPy.
//!
//! The sample is given as a function from rank to value, so that values in bins need no array.

/// The `p`-quantile of `n` ordered values, `value(0) <= value(1) <= …`, interpolated linearly
/// between the ranks around (n - 1) p. NaN if `n` is 0.
///
/// The arithmetic is that of `scipy.stats.quantile`. Between two equal values, however, it returns
/// exactly that value, as NumPy does.
pub fn linear_quantile(n: u64, p: f64, value: impl Fn(u64) -> f64) -> f64 {
    if n == 0 {
        return f64::NAN;
    }
    let rank = p * n as f64 + (1.0 - p); // counted from 1
    let weight = rank % 1.0;
    let lower = (rank.floor() as u64).saturating_sub(1).min(n - 1);
    let upper = (lower + 1).min(n - 1);
    let (low, high) = (value(lower), value(upper));
    if low == high { low } else { (1.0 - weight) * low + weight * high }
}

#[cfg(test)]
mod tests {
    use super::*;

    // import numpy as np; from scipy import stats  # NumPy 2.4.6, SciPy 1.17.1
    // x = np.array([-3.0, -1.5, 0.25, 0.25, 2.0, 7.0, 11.0])
    // for p in (0., 0.025, 0.25, 0.4, 0.5, 0.75, 0.975, 1.):
    //     print(p, float(stats.quantile(x, p)))  # == np.quantile
    #[test]
    fn is_that_of_scipy() {
        let values = [-3.0, -1.5, 0.25, 0.25, 2.0, 7.0, 11.0];
        let expected = [
            (0.0, -3.0),
            (0.025, -2.775),
            (0.25, -0.625),
            (0.4, 0.25),
            (0.5, 0.25),
            (0.75, 4.5),
            (0.975, 10.4),
            (1.0, 11.0),
        ];
        for (p, want) in expected {
            let got = linear_quantile(7, p, |rank| values[rank as usize]);
            assert!((got - want).abs() < 1e-14, "{p}: {got} is not {want}");
        }
    }

    #[test]
    fn one_value_and_none() {
        assert_eq!(linear_quantile(1, 0.3, |_| 0.1), 0.1);
        assert!(linear_quantile(0, 0.5, |_| 0.0).is_nan());
    }
}
