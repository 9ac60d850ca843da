//! Sums of powers and extremes of channels, in f64 and in one order: row after row.

use rayon::prelude::*;

use crate::record::Channels;
use crate::vector::vectorised;

/// Number of channels that are summed together.
const LANES: usize = 8;
/// Number of groups of channels in one parallel task.
const GROUPS: usize = 64;

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
    /// Number of values that were left out, being NaN or infinite.
    pub non_finite: u64,
}

impl Sums {
    pub(super) fn new(width: usize) -> Self {
        Self { width, lanes: vec![EMPTY; width.div_ceil(LANES)], non_finite: 0 }
    }

    /// Number of channels.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Adds `x` [rows, width].
    pub(super) fn add(&mut self, x: &[f32]) {
        let width = self.width;
        let parts = self.lanes.par_chunks_mut(GROUPS).enumerate();
        let non_finite = parts.map(|(part, lanes)| {
            let first = part * GROUPS * LANES;
            let last = (first + GROUPS * LANES).min(width);
            x.chunks_exact(width).map(|row| add_part(lanes, &row[first..last])).sum::<u64>()
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

/// Adds a part of a row. Returns the number of values that are not finite, which are left out.
fn add_part(lanes: &mut [Lane], row: &[f32]) -> u64 {
    let largest = vectorised(|| row.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
    if f32::from_bits(largest).is_finite() {
        vectorised(|| add_finite(lanes, row));
        return 0;
    }
    let mut left_out = 0;
    for (i, x) in row.iter().enumerate() {
        match x.is_finite() {
            true => add_value(&mut lanes[i / LANES], i % LANES, *x),
            false => left_out += 1,
        }
    }
    left_out
}

#[inline(always)]
fn add_finite(lanes: &mut [Lane], row: &[f32]) {
    let (whole, rest) = row.as_chunks::<LANES>();
    for (lane, chunk) in lanes.iter_mut().zip(whole) {
        for (i, x) in chunk.iter().enumerate() {
            add_value(lane, i, *x);
        }
    }
    if let Some(lane) = lanes.get_mut(whole.len()) {
        for (i, x) in rest.iter().enumerate() {
            add_value(lane, i, *x);
        }
    }
}

#[inline(always)]
fn add_value(lane: &mut Lane, i: usize, x: f32) {
    lane.max[i] = if x > lane.max[i] { x } else { lane.max[i] };
    lane.min[i] = if x < lane.min[i] { x } else { lane.min[i] };
    let x = f64::from(x);
    let square = x * x;
    lane.sum[i] += x;
    lane.sum2[i] += square;
    lane.sumabs[i] += x.abs();
    lane.sum3[i] += square * x;
    lane.sum4[i] += square * square;
}
