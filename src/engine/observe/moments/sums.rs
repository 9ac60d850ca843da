//! Sums of powers and extremes of channels, in one order: sixteen rows in f32, and then these sums
//! in f64.

use rayon::prelude::*;

use crate::record::Channels;
use crate::vector::vectorised;

/// Number of channels that are summed together.
const LANES: usize = 8;
/// Number of groups of channels in one parallel task.
const GROUPS: usize = 16;
/// Number of rows whose sums are f32.
const ROWS: usize = 16;

/// The sums of eight channels.
#[derive(Clone, Copy)]
struct Lane {
    max: [f32; LANES],
    min: [f32; LANES],
    sum: [f64; LANES],
    sum2: [f64; LANES],
    sumabs: [f64; LANES],
    sum3: [f64; LANES],
    sum4: [f64; LANES],
}

const EMPTY: Lane = Lane {
    max: [f32::NEG_INFINITY; LANES],
    min: [f32::INFINITY; LANES],
    sum: [0.0; LANES],
    sum2: [0.0; LANES],
    sumabs: [0.0; LANES],
    sum3: [0.0; LANES],
    sum4: [0.0; LANES],
};

/// The sums of all channels over the rows so far.
pub(super) struct Sums {
    width: usize,
    lanes: Vec<Lane>,
    /// Rows that wait for others, less than `ROWS`: however rows come, the same are summed
    /// together.
    waiting: Vec<f32>,
    /// Number of values that were left out, being NaN or infinite.
    non_finite: u64,
}

impl Sums {
    pub(super) fn new(width: usize) -> Self {
        Self { width, lanes: vec![EMPTY; width.div_ceil(LANES)], waiting: Vec::new(), non_finite: 0 }
    }

    /// Number of channels.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Number of values that were left out, being NaN or infinite.
    pub(super) fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// Adds `x` [rows, width].
    pub(super) fn add(&mut self, mut x: &[f32]) {
        let block = ROWS * self.width;
        if !self.waiting.is_empty() {
            let (first, rest) = x.split_at(x.len().min(block - self.waiting.len()));
            self.waiting.extend(first);
            x = rest;
            if self.waiting.len() == block {
                let waited = std::mem::take(&mut self.waiting);
                self.add_blocks(&waited);
            }
        }
        let (whole, rest) = x.split_at(x.len() / block * block);
        self.add_blocks(whole);
        self.waiting.extend(rest);
    }

    /// Adds the rows that wait for others.
    pub(super) fn finish(&mut self) {
        let waited = std::mem::take(&mut self.waiting);
        self.add_blocks(&waited);
    }

    /// Adds blocks of rows, of which the last may be short.
    fn add_blocks(&mut self, x: &[f32]) {
        let width = self.width;
        let parts = self.lanes.par_chunks_mut(GROUPS).enumerate();
        let non_finite = parts.map(|(part, lanes)| {
            let first = part * GROUPS * LANES;
            let of_block = |block: &[f32]| vectorised!(|| add_block(lanes, block, width, first));
            x.chunks(ROWS * width).map(of_block).sum::<u64>()
        });
        self.non_finite += non_finite.sum::<u64>();
    }

    /// The sums as the record has them, appended to those of other channels.
    pub(super) fn append_to(&self, to: &mut Channels) {
        let all = || self.lanes.iter();
        fn extend<T: Copy>(to: &mut Vec<T>, width: usize, lanes: impl Iterator<Item = [T; LANES]>) {
            let end = to.len() + width;
            lanes.for_each(|lane| to.extend(lane));
            to.truncate(end);
        }
        extend(&mut to.max, self.width, all().map(|lane| lane.max));
        extend(&mut to.min, self.width, all().map(|lane| lane.min));
        extend(&mut to.sum, self.width, all().map(|lane| lane.sum));
        extend(&mut to.sum2, self.width, all().map(|lane| lane.sum2));
        extend(&mut to.sumabs, self.width, all().map(|lane| lane.sumabs));
        extend(&mut to.sum3, self.width, all().map(|lane| lane.sum3));
        extend(&mut to.sum4, self.width, all().map(|lane| lane.sum4));
    }
}

/// Adds some rows to the channels from `first` on. Returns the number of values that are not
/// finite, which are left out.
#[inline(always)]
fn add_block(lanes: &mut [Lane], block: &[f32], width: usize, first: usize) -> u64 {
    let mut left_out = 0;
    for (group, lane) in lanes.iter_mut().enumerate() {
        let first = first + group * LANES;
        let whole = first + LANES <= width && add_fast(lane, block, width, first);
        if !whole {
            left_out += add_by_value(lane, block, width, first);
        }
    }
    left_out
}

/// Adds rows of eight channels. False, and nothing is added, if a value is not finite or a power of
/// one is beyond f32.
#[inline(always)]
fn add_fast(lane: &mut Lane, block: &[f32], width: usize, first: usize) -> bool {
    let (mut max, mut min) = (lane.max, lane.min);
    let [mut sum, mut sum2, mut sumabs, mut sum3, mut sum4] = [[0f32; LANES]; 5];
    for row in block.chunks_exact(width) {
        let Some(x) = row[first..].first_chunk::<LANES>() else {
            return false;
        };
        for i in 0..LANES {
            let x = x[i];
            max[i] = if x > max[i] { x } else { max[i] };
            min[i] = if x < min[i] { x } else { min[i] };
            let square = x * x;
            sum[i] += x;
            sum2[i] += square;
            sumabs[i] += x.abs();
            sum3[i] += square * x;
            sum4[i] += square * square;
        }
    }
    // NaN, infinities and what is too large end here. The least power of a value may be 0 in f32.
    if !sum4.iter().all(|sum| sum.is_finite()) {
        return false;
    }
    (lane.max, lane.min) = (max, min);
    let add = |to: &mut [f64; LANES], more: [f32; LANES]| {
        to.iter_mut().zip(more).for_each(|(to, more)| *to += f64::from(more));
    };
    add(&mut lane.sum, sum);
    add(&mut lane.sum2, sum2);
    add(&mut lane.sumabs, sumabs);
    add(&mut lane.sum3, sum3);
    add(&mut lane.sum4, sum4);
    true
}

/// Adds rows of up to eight channels value by value. Returns the number of those that are not
/// finite.
fn add_by_value(lane: &mut Lane, block: &[f32], width: usize, first: usize) -> u64 {
    let mut left_out = 0;
    for row in block.chunks_exact(width) {
        for (i, x) in row[first..].iter().take(LANES).enumerate() {
            if !x.is_finite() {
                left_out += 1;
                continue;
            }
            lane.max[i] = if *x > lane.max[i] { *x } else { lane.max[i] };
            lane.min[i] = if *x < lane.min[i] { *x } else { lane.min[i] };
            let x = f64::from(*x);
            let square = x * x;
            lane.sum[i] += x;
            lane.sum2[i] += square;
            lane.sumabs[i] += x.abs();
            lane.sum3[i] += square * x;
            lane.sum4[i] += square * square;
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The channels of `x` [rows, width], which comes in pieces of so many rows.
    fn of(x: &[f32], width: usize, rows: usize) -> (Channels, u64) {
        let mut sums = Sums::new(width);
        x.chunks(rows * width).for_each(|x| sums.add(x));
        sums.finish();
        let mut channels = Channels::default();
        sums.append_to(&mut channels);
        (channels, sums.non_finite())
    }

    #[test]
    fn sums_do_not_depend_on_how_rows_come() {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let width = 173;
        let mut x: Vec<f32> = (0..70 * width).map(|_| rng.random_range(-9.0..9.0f32).powi(3)).collect();
        (x[5], x[width + 172], x[40 * width + 30]) = (f32::NAN, f32::INFINITY, 3e12);
        let (whole, left_out) = of(&x, width, 70);
        assert_eq!(left_out, 2);
        for rows in [1, 7, 16, 33] {
            assert!(of(&x, width, rows) == (whole.clone(), 2), "{rows} rows");
        }
        for channel in 0..width {
            let values = || (0..70).map(|row| f64::from(x[row * width + channel])).filter(|x| x.is_finite());
            for (power, sum) in [(1, &whole.sum), (2, &whole.sum2), (3, &whole.sum3), (4, &whole.sum4)] {
                let exact: f64 = values().map(|x| x.powi(power)).sum();
                let size: f64 = values().map(|x| x.abs().powi(power)).sum();
                assert!((sum[channel] - exact).abs() <= 1e-6 * size, "{channel}: x^{power} {}", sum[channel]);
            }
            assert!((whole.sumabs[channel] / values().map(f64::abs).sum::<f64>() - 1.0).abs() < 1e-6);
            assert_eq!(f64::from(whole.max[channel]), values().fold(f64::NEG_INFINITY, f64::max));
            assert_eq!(f64::from(whole.min[channel]), values().fold(f64::INFINITY, f64::min));
        }
    }
}
