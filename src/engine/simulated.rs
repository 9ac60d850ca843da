//! Simulated quantisation of rows of f32: each value is replaced by the nearest that a format has.
//!
//! Scales are applied by division, and halves round to even, as PyTorch does. docs/measures.md has
//! the definition of each format and its source. `observe/quantisation/errors.rs` computes the
//! errors of all formats at once.

use crate::record::QuantFormat;

/// The largest value of E4M3FN.
pub(in crate::engine) const E4M3_MAX: f32 = 448.0;
/// The largest value of E2M1.
const E2M1_MAX: f32 = 6.0;
/// The smallest E4M3 number above 0, which is the smallest scale of an NVFP4 block.
const E4M3_LEAST: f32 = 1.0 / 512.0;
const MX_BLOCK: usize = 32;
const NV_BLOCK: usize = 16;
const INT4_GROUP: usize = 128;

/// Replaces a row by what the format keeps of it. `largest` is the largest |x| of the whole tensor.
#[inline(always)]
pub(in crate::engine) fn quantise(format: QuantFormat, row: &mut [f32], largest: f32) {
    match format {
        QuantFormat::Int8Token => int8(row, absmax(row) / 127.0),
        QuantFormat::Int8Tensor => int8(row, largest / 127.0),
        QuantFormat::Fp8Token => fp8(row, absmax(row) / E4M3_MAX),
        QuantFormat::Mxfp4 => row.chunks_mut(MX_BLOCK).for_each(mx_block),
        QuantFormat::Nvfp4 => {
            let scale = largest / (6.0 * E4M3_MAX);
            row.chunks_mut(NV_BLOCK).for_each(|block| nv_block(block, scale));
        }
    }
}

/// The largest |x|.
#[inline(always)]
pub(in crate::engine) fn absmax(row: &[f32]) -> f32 {
    f32::from_bits(row.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7fff_ffff)))
}

/// 8-bit integers from -127 to 127.
#[inline(always)]
fn int8(row: &mut [f32], scale: f32) {
    integers(row, scale, 127.0);
}

/// 4-bit integers from -7 to 7 with a scale for each 128 values.
#[inline(always)]
pub(in crate::engine) fn int4_groups(row: &mut [f32]) {
    row.chunks_mut(INT4_GROUP).for_each(|group| integers(group, absmax(group) / 7.0, 7.0));
}

/// Integers from -most to most.
#[inline(always)]
fn integers(row: &mut [f32], scale: f32, most: f32) {
    let divisor = if scale > 0.0 { scale } else { 1.0 };
    row.iter_mut().for_each(|x| *x = (*x / divisor).round_ties_even().clamp(-most, most) * scale);
}

/// 8-bit floats.
#[inline(always)]
fn fp8(row: &mut [f32], scale: f32) {
    let divisor = if scale > 0.0 { scale } else { 1.0 };
    row.iter_mut().for_each(|x| *x = e4m3(*x / divisor) * scale);
}

/// A block of 4-bit floats with a power of two as scale (OCP Microscaling Formats 1.0, section
/// 6.3).
#[inline(always)]
fn mx_block(block: &mut [f32]) {
    let largest = absmax(block);
    if largest == 0.0 {
        return;
    }
    // In f64 every f32 has its exponent in these bits.
    let exponent = ((f64::from(largest).to_bits() >> 52) & 0x7ff) as i32 - 1023 - 2;
    let scale = 2f64.powi(exponent.clamp(-127, 127)) as f32;
    block.iter_mut().for_each(|x| *x = e2m1(*x / scale) * scale);
}

/// A block of 4-bit floats with an 8-bit float as scale, relative to that of the tensor.
#[inline(always)]
fn nv_block(block: &mut [f32], of_tensor: f32) {
    if of_tensor == 0.0 {
        return;
    }
    let own = absmax(block) / (6.0 * of_tensor);
    let own = e4m3(if own == 0.0 { 1.0 } else { own.max(E4M3_LEAST) });
    let scale = own * of_tensor;
    block.iter_mut().for_each(|x| *x = e2m1(*x / scale) * scale);
}

/// The nearest E4M3FN number, at most 448 in magnitude.
#[inline(always)]
pub(in crate::engine) fn e4m3(x: f32) -> f32 {
    let x = x.clamp(-E4M3_MAX, E4M3_MAX);
    // Three bits of mantissa remain of the 23. Below 2^-6 numbers are multiples of 2^-9.
    let bits = x.to_bits();
    let normal = f32::from_bits((bits + 0x7_ffff + ((bits >> 20) & 1)) & !0xf_ffff);
    let subnormal = (x * 512.0).round_ties_even() / 512.0;
    if x.abs() < 1.0 / 64.0 { subnormal } else { normal }
}

/// The nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with the sign of x; a tie goes to the even
/// mantissa.
#[inline(always)]
pub(in crate::engine) fn e2m1(x: f32) -> f32 {
    let size = x.abs();
    let by_half = (size * 2.0).round_ties_even() / 2.0;
    let by_one = size.round_ties_even();
    let by_two = (size / 2.0).round_ties_even() * 2.0;
    let nearest = if size < 2.0 {
        by_half
    } else if size < 4.0 {
        by_one
    } else {
        by_two
    };
    nearest.min(E2M1_MAX).copysign(x)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The nearest number of a table; of two as near, the one with the even index.
    fn nearest(x: f32, table: &[f64]) -> f32 {
        let size = f64::from(x.abs()).min(table[table.len() - 1]);
        let order = |i: &usize| ((size - table[*i]).abs(), i % 2);
        let best = (0..table.len()).min_by(|a, b| order(a).partial_cmp(&order(b)).unwrap()).unwrap();
        (table[best] as f32).copysign(x)
    }

    #[test]
    fn numbers_go_to_the_nearest_of_the_table() {
        let small = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let subnormal = (0..8).map(|m| f64::from(m) / 8.0 / 64.0);
        let normal = (1..16).flat_map(|e| (0..8).map(move |m| (1.0 + f64::from(m) / 8.0) * 2f64.powi(e - 7)));
        let eight: Vec<f64> = subnormal.chain(normal).filter(|x| *x <= 448.0).collect();
        assert_eq!(eight.len(), 127);
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(2);
        let drawn = (0..40_000).map(|_| rng.random_range(-8.0..8.0f32).powi(3));
        let ties = eight.windows(2).map(|pair| ((pair[0] + pair[1]) / 2.0) as f32);
        for x in drawn.chain(ties).chain((-64..=64).map(|eighth| eighth as f32 / 8.0)) {
            assert_eq!(e2m1(x), nearest(x, &small), "{x}");
            assert_eq!(e4m3(x), nearest(x, &eight), "{x}");
        }
    }

    #[test]
    fn rows_are_quantised_as_by_hand() {
        let of = |format, mut row: Vec<f32>| {
            let largest = absmax(&row);
            quantise(format, &mut row, largest);
            row
        };
        let row = vec![1.0, 2.0, -127.0, 0.5, 1.5, 2.5];
        assert_eq!(of(QuantFormat::Int8Token, row.clone()), [1.0, 2.0, -127.0, 0.0, 2.0, 2.0]);
        assert_eq!(of(QuantFormat::Int8Tensor, row), [1.0, 2.0, -127.0, 0.0, 2.0, 2.0]);
        // The largest of the first block is 7.9, whose scale is 1; 0.01 is alone in the second.
        let mut row = vec![0.0; 40];
        (row[0], row[1], row[2], row[35]) = (7.9, -1.0, 0.3, 0.01);
        let quantised = of(QuantFormat::Mxfp4, row);
        assert_eq!((quantised[0], quantised[1], quantised[2], quantised[35]), (6.0, -1.0, 0.5, 0.011_718_75));
        for format in QuantFormat::ALL {
            assert_eq!(of(format, vec![0.0; 20]), [0.0; 20], "{format:?}");
        }
    }
}
