//! The squared errors of all formats, in one walk over a row.
//!
//! What `engine/simulated.rs` says one format at a time is here said of all, with two differences
//! that the sums of squares do not show: values are multiplied by the inverse of a scale (where
//! x / scale and x * (1 / scale) round to different neighbours, both are as far away), and sums of
//! 8 columns in a row are f32.

use crate::engine::simulated::{E4M3_MAX, e4m3};

/// The values of a block of MXFP4, which are two blocks of NVFP4.
pub(super) const BLOCK: usize = 32;
const HALF: usize = 16;
/// Number of partial sums of each format.
const LANES: usize = 8;
/// Adding this number, 1.5 * 2^23, and taking it away rounds to a whole number, halves to the even
/// one.
const ROUND: f32 = 12_582_912.0;
/// The bits of an f32's exponent, and those of its magnitude.
const EXPONENT: u32 = 0x7f80_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;
/// 2^-6, the smallest normal number of E4M3, and 1, that of E2M1.
const LEAST_E4M3: u32 = (127 - 6) << 23;
const LEAST_E2M1: u32 = 127 << 23;
/// Blocks are not told apart below this exponent, 2^-87: the largest value of the tensor is near 1.
const LEAST_BLOCK: u32 = 40 << 23;

/// The scales of a block.
#[derive(Clone, Copy, Default)]
pub(super) struct Scales {
    /// The largest |x| of each half.
    largest: [f32; 2],
    nvfp4: [f32; 2],
    /// The inverses of those.
    by_nvfp4: [f32; 2],
    mxfp4: f32,
}

/// The sums of squared errors of a row in the order of `QuantFormat::ALL`, and the sum of squares.
///
/// The largest |x| of its tensor is `largest`, and near 1. `scales` is space to work in.
#[inline(always)]
pub(super) fn row_errors(row: &[[f32; BLOCK]], largest: f32, scales: &mut Vec<Scales>) -> ([f64; 5], f64) {
    scales.resize(row.len(), Scales::default());
    let token = find_largest(row, scales);
    if token == 0.0 {
        return ([0.0; 5], 0.0);
    }
    choose_scales(scales, largest);
    let (int8, int8_tensor, fp8) = (token / 127.0, largest / 127.0, token / E4M3_MAX);
    let (by_int8, by_int8_tensor, by_fp8) = (1.0 / int8, 1.0 / int8_tensor, 1.0 / fp8);
    let mut errors = [[0f32; LANES]; 5];
    let mut squares = [0f32; LANES];
    for (block, scales) in row.iter().zip(scales.iter()) {
        add_squares(&mut errors[0], block, |x| from_whole(x * by_int8));
        add_squares(&mut errors[1], block, |x| from_whole(x * by_int8_tensor));
        add_squares(&mut errors[2], block, |x| {
            let x = x * by_fp8;
            x - nearest::<3>(x, LEAST_E4M3)
        });
        let (least, most) = (scales.mxfp4.to_bits(), 6.0 * scales.mxfp4);
        add_squares(&mut errors[3], block, |x| x - limited(nearest::<1>(x, least), most));
        let halves = block.as_chunks::<HALF>().0;
        for ((half, scale), by) in halves.iter().zip(scales.nvfp4).zip(scales.by_nvfp4) {
            add_squares(&mut errors[4], half, |x| {
                let x = x * by;
                (x - limited(nearest::<1>(x, LEAST_E2M1), 6.0)) * scale
            });
        }
        add_squares(&mut squares, block, |x| x);
    }
    let total = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
    let mut errors = errors.map(total);
    // These three were summed in units of their scales.
    errors.iter_mut().zip([int8, int8_tensor, fp8]).for_each(|(sum, scale)| *sum *= f64::from(scale).powi(2));
    (errors, total(squares))
}

/// Finds the largest |x| of each half of a block. Returns that of the row.
#[inline(always)]
fn find_largest(row: &[[f32; BLOCK]], scales: &mut [Scales]) -> f32 {
    let mut of_row = 0u32;
    for (block, scales) in row.iter().zip(scales) {
        for (half, largest) in block.as_chunks::<HALF>().0.iter().zip(&mut scales.largest) {
            let mut lanes = [0u32; LANES];
            for eight in half.as_chunks::<LANES>().0 {
                lanes.iter_mut().zip(eight).for_each(|(most, x)| *most = (*most).max(x.to_bits() & MAGNITUDE));
            }
            let most = lanes.into_iter().fold(0, u32::max);
            *largest = f32::from_bits(most);
            of_row = of_row.max(most);
        }
    }
    f32::from_bits(of_row)
}

/// The scales of blocks, of which those of NVFP4 are relative to the tensor's.
#[inline(always)]
fn choose_scales(scales: &mut [Scales], largest: f32) {
    let of_tensor = largest / (6.0 * E4M3_MAX);
    for scales in scales {
        for half in 0..2 {
            // 2^-9 is the smallest number above 0. Where all values are 0, so is the error.
            let own = scales.largest[half] / (6.0 * of_tensor);
            scales.nvfp4[half] = e4m3(own.max(1.0 / 512.0)) * of_tensor;
            scales.by_nvfp4[half] = 1.0 / scales.nvfp4[half];
        }
        let exponent = scales.largest[0].max(scales.largest[1]).to_bits() & EXPONENT;
        scales.mxfp4 = f32::from_bits(exponent.max(LEAST_BLOCK) - (2 << 23));
    }
}

#[inline(always)]
fn add_squares<const N: usize>(sums: &mut [f32; LANES], block: &[f32; N], f: impl Fn(f32) -> f32) {
    for eight in block.as_chunks::<LANES>().0 {
        for (sum, x) in sums.iter_mut().zip(eight) {
            let y = f(*x);
            *sum += y * y;
        }
    }
}

/// The distance of x, at most 2^22, from the nearest whole number.
#[inline(always)]
fn from_whole(x: f32) -> f32 {
    x - ((x + ROUND) - ROUND)
}

/// The nearest float with M bits of mantissa behind the point. Those below the number whose bits
/// are `least`, a power of two, are as far apart as those above.
#[inline(always)]
fn nearest<const M: u32>(x: f32, least: u32) -> f32 {
    let exponent = (x.to_bits() & EXPONENT).max(least);
    // 1.5 * 2^(23 - M) times the power of two in x: its last bit is the last that remains of x.
    let round = f32::from_bits(exponent.wrapping_add(((23 - M) << 23) + 0x40_0000));
    (x + round) - round
}

#[inline(always)]
fn limited(x: f32, most: f32) -> f32 {
    let x = if x > most { most } else { x };
    if x < -most { -most } else { x }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::engine::simulated::{absmax, quantise};
    use crate::record::QuantFormat;
    use crate::vector::vectorised;

    #[test]
    fn errors_are_those_of_each_format_by_itself() {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for case in 0..60 {
            let spread = [0.0f32, 1.0, 6.0, 20.0][case % 4];
            let mut draw = || (rng.random_range(-1.0..1.0f32) * spread).exp() * rng.random_range(-1.0..1.0f32);
            let mut blocks: Vec<[f32; BLOCK]> = (0..9).map(|_| std::array::from_fn(|_| draw())).collect();
            blocks[4] = [0.0; BLOCK];
            // Halves between two numbers of every format.
            blocks[5] = std::array::from_fn(|i| (i as f32 - 16.0) / 8.0);
            let most = absmax(blocks.as_flattened());
            let unit = f32::from_bits(most.to_bits() & EXPONENT);
            blocks.as_flattened_mut().iter_mut().for_each(|x| *x /= unit);
            // Another row of the tensor may have the largest value.
            let largest = most / unit * [1.0, 1.7][case % 2];
            let row = blocks.as_flattened();
            let (errors, squares) = vectorised!(|| row_errors(&blocks, largest, &mut Vec::new()));
            let close = |ours: f64, exact: f64, what: &str| {
                assert!((ours - exact).abs() <= 1e-5 * exact + 1e-30, "{what} in case {case}: {ours} for {exact}");
            };
            close(squares, row.iter().map(|x| f64::from(*x).powi(2)).sum(), "squares");
            for (format, ours) in QuantFormat::ALL.into_iter().zip(errors) {
                let mut kept = row.to_vec();
                quantise(format, &mut kept, largest);
                let exact = row.iter().zip(&kept).map(|(x, kept)| (f64::from(*x) - f64::from(*kept)).powi(2));
                close(ours, exact.sum(), &format!("{format:?}"));
            }
        }
    }
}
