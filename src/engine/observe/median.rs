//! The exact median of |x|, by counting: the bits of floats have the order of their magnitudes, so
//! a bracket of bits is narrowed until few values are left in it.

use crate::vector::vectorised;

/// The bits of |x| without the sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Values in the bracket that are sorted at the end, beside a share of all.
const FEW: usize = 32;

/// The median of |x|; of an even number of values, the mean of the two in the middle. NaN if there
/// is no value. Values must not be NaN.
pub(crate) fn median_abs(x: &[f32]) -> f64 {
    if x.is_empty() {
        return f64::NAN;
    }
    let (lower, upper) = ((x.len() - 1) / 2, x.len() / 2);
    // Of all values, `below` are less than `low`, and `within` at least that and less than `high`.
    let (mut low, mut high) = (0u32, f32::INFINITY.to_bits() + 1);
    let (mut below, mut within) = (0, x.len());
    // The median is seldom far from the mean.
    let mean = vectorised(|| x.iter().map(|x| x.abs()).sum::<f32>()) / x.len() as f32;
    let mut guess = if mean.is_finite() { (0.8 * mean).to_bits() } else { high / 2 };
    while within > FEW + x.len() / 64 && high - low > 1 {
        let middle = guess.clamp(low + 1, high - 1);
        let count = vectorised(|| less(x, middle));
        if count <= lower {
            (within, below, low) = (within - (count - below), count, middle);
        } else if count > upper {
            (within, high) = (count - below, middle);
        } else {
            // The middle of the two ranks.
            let magnitudes = || x.iter().map(|x| x.to_bits() & MAGNITUDE);
            let (left, right) =
                (magnitudes().filter(|bits| *bits < middle).max(), magnitudes().filter(|bits| *bits >= middle).min());
            return mean_of(left.unwrap_or(0), right.unwrap_or(0));
        }
        guess = low + (high - low) / 2;
    }
    if high - low == 1 {
        return f64::from(f32::from_bits(low));
    }
    let magnitudes = x.iter().map(|x| x.to_bits() & MAGNITUDE);
    let mut left: Vec<u32> = magnitudes.filter(|bits| (low..high).contains(bits)).collect();
    left.sort_unstable();
    mean_of(left[lower - below], left[upper - below])
}

fn mean_of(a: u32, b: u32) -> f64 {
    (f64::from(f32::from_bits(a)) + f64::from(f32::from_bits(b))) / 2.0
}

/// The number of values whose magnitude has bits less than `bits`.
#[inline(always)]
fn less(x: &[f32], bits: u32) -> usize {
    let mut count = 0usize;
    for chunk in x.chunks(1 << 16) {
        count += chunk.iter().map(|x| u32::from((x.to_bits() & MAGNITUDE) < bits)).sum::<u32>() as usize;
    }
    count
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn it_is_that_of_the_sorted_values() {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for n in [1, 2, 3, 64, 100, 577, 5000, 40_001] {
            for spread in [0.0, 1.0, 40.0] {
                let mut draw = || (rng.random_range(-1.0..1.0f32) * spread).exp() * rng.random_range(-1.0..1.0f32);
                let x: Vec<f32> = (0..n).map(|_| draw()).collect();
                let mut sorted: Vec<f64> = x.iter().map(|x| f64::from(x.abs())).collect();
                sorted.sort_by(f64::total_cmp);
                assert_eq!(median_abs(&x), (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0, "{n} values, {spread}");
            }
        }
    }

    #[test]
    fn many_equal_values_zeros_and_infinities_have_one_too() {
        assert_eq!(median_abs(&[0.0; 1000]), 0.0);
        assert_eq!(median_abs(&[-2.5; 999]), 2.5);
        let mut half = vec![0.0; 500];
        half.extend([3.0; 500]);
        assert_eq!(median_abs(&half), 1.5);
        half.extend([f32::INFINITY; 1001]);
        assert_eq!(median_abs(&half), f64::INFINITY);
        assert!(median_abs(&[]).is_nan());
    }
}
