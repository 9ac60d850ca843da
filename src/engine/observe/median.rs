//! The exact median of |x|, by counting: the bits of floats have the order of their magnitudes, so
//! a bracket of bits is narrowed until few values are left in it.

use crate::vector::vectorised;

/// The bits of |x| without the sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Values in the bracket that are collected and sorted.
const FEW: usize = 12;
/// Number of values that are searched together.
const CHUNK: usize = 32;
/// Number of partial sums and of values that are compared together.
const LANES: usize = 8;

/// Part of the values: those from the magnitude `low` to below `high`.
struct Bracket {
    low: i32,
    high: i32,
    /// Number of all values that are less than `low`, and than `high`.
    below: usize,
    end: usize,
}

/// The median of |x|; of an even number of values, the mean of the two in the middle. NaN if there
/// is no value. Values must not be NaN.
pub(crate) fn median_abs(x: &[f32]) -> f64 {
    if x.is_empty() {
        return f64::NAN;
    }
    let (lower, upper) = ((x.len() - 1) / 2, x.len() / 2);
    let mut bracket = Bracket { low: 0, high: (f32::INFINITY.to_bits() + 1) as i32, below: 0, end: x.len() };
    // Where values are normal, the median is 0.845 of the mean.
    let mean = vectorised!(|| sum_abs(x)) / x.len() as f32;
    let mut cuts = match mean.is_finite() {
        true => [0.76, 0.84, 0.92].map(|share| (share * mean).to_bits() as i32),
        false => bracket.quarters(),
    };
    while bracket.end - bracket.below > FEW && bracket.high - bracket.low > 1 {
        let before = bracket.end - bracket.below;
        cuts = cuts.map(|cut| cut.clamp(bracket.low + 1, bracket.high - 1));
        let counts = vectorised!(|| less(x, cuts));
        for (cut, count) in cuts.into_iter().zip(counts) {
            if count <= lower {
                (bracket.low, bracket.below) = (cut, count);
            } else if count > upper {
                (bracket.high, bracket.end) = (cut, count);
                break;
            } else {
                // The cut is between the two in the middle.
                let (left, right) = vectorised!(|| beside(x, cut));
                return mean_of(left, right);
            }
        }
        cuts = match (bracket.end - bracket.below) * 4 < before {
            true => bracket.around(lower, upper),
            false => bracket.quarters(),
        };
    }
    if bracket.high - bracket.low == 1 {
        return f64::from(f32::from_bits(bracket.low as u32));
    }
    let mut found = [0u32; FEW];
    let n = vectorised!(|| collect(x, &bracket, &mut found));
    let found = &mut found[..n];
    found.sort_unstable();
    mean_of(found[lower - bracket.below], found[upper - bracket.below])
}

impl Bracket {
    /// Three magnitudes that divide the bracket evenly.
    fn quarters(&self) -> [i32; 3] {
        let quarter = (self.high - self.low) / 4;
        [self.low + quarter, self.low + 2 * quarter, self.high - quarter]
    }

    /// Three magnitudes, rising, that leave few values around these ranks if values are spread
    /// evenly.
    fn around(&self, lower: usize, upper: usize) -> [i32; 3] {
        let values = (self.end - self.below) as f32;
        let at = |rank: f32| self.low + ((self.high - self.low) as f32 * (rank / values).clamp(0.0, 1.0)) as i32;
        let middle = (lower - self.below) as f32 + 0.5 + (upper - lower) as f32 / 2.0;
        let margin = 1.5 + values / 24.0;
        [at(middle - margin), at(middle), at(middle + margin)]
    }
}

fn mean_of(a: u32, b: u32) -> f64 {
    (f64::from(f32::from_bits(a)) + f64::from(f32::from_bits(b))) / 2.0
}

/// The bits of |x|, which are ordered as these are.
#[inline(always)]
fn magnitude(x: f32) -> i32 {
    (x.to_bits() & MAGNITUDE) as i32
}

#[inline(always)]
fn sum_abs(x: &[f32]) -> f32 {
    let mut sums = [0f32; CHUNK];
    let (whole, rest) = x.as_chunks::<CHUNK>();
    for chunk in whole {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x.abs());
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| x.abs()).sum::<f32>()
}

/// For each of three magnitudes, the number of values that are less.
#[inline(always)]
fn less(x: &[f32], cuts: [i32; 3]) -> [usize; 3] {
    let mut counts = [0usize; 3];
    for piece in x.chunks(1 << 16) {
        let mut of_piece = [0u32; 3];
        for x in piece {
            let x = magnitude(*x);
            of_piece.iter_mut().zip(cuts).for_each(|(count, cut)| *count += u32::from(x < cut));
        }
        counts.iter_mut().zip(of_piece).for_each(|(sum, count)| *sum += count as usize);
    }
    counts
}

/// The largest magnitude below `cut`, and the smallest of the others.
#[inline(always)]
fn beside(x: &[f32], cut: i32) -> (u32, u32) {
    let (mut left, mut right) = (0i32, i32::MAX);
    for x in x {
        let x = magnitude(*x);
        left = left.max(if x < cut { x } else { 0 });
        right = right.min(if x < cut { i32::MAX } else { x });
    }
    (left as u32, right as u32)
}

/// Writes the magnitudes in the bracket to `found`. Returns their number.
#[inline(always)]
fn collect(x: &[f32], bracket: &Bracket, found: &mut [u32; FEW]) -> usize {
    let (low, high) = (bracket.low, bracket.high);
    let mut n = 0;
    let mut add = |x: f32| {
        let x = magnitude(x);
        if (low..high).contains(&x) {
            found[n] = x as u32;
            n += 1;
        }
    };
    let (whole, rest) = x.as_chunks::<CHUNK>();
    for chunk in whole {
        // Most chunks have none.
        let mut within = [0i32; LANES];
        for values in chunk.as_chunks::<LANES>().0 {
            for (within, x) in within.iter_mut().zip(values) {
                let x = magnitude(*x);
                *within |= i32::from(x >= low) & i32::from(x < high);
            }
        }
        if within != [0; LANES] {
            chunk.iter().for_each(|x| add(*x));
        }
    }
    rest.iter().for_each(|x| add(*x));
    n
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
