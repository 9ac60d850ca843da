//! Elementwise sums and products in place.

use rayon::prelude::*;

use super::pieces::PIECE;
use crate::vector::vectorised;

/// residual += x.
pub(crate) fn add(residual: &mut [f32], x: &[f32]) {
    residual.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(residual, x)| {
        vectorised!(|| residual.iter_mut().zip(x).for_each(|(residual, x)| *residual += x));
    });
}

/// x = factor * x.
pub(crate) fn scale(x: &mut [f32], factor: f32) {
    x.par_chunks_mut(PIECE).for_each(|x| vectorised!(|| x.iter_mut().for_each(|x| *x *= factor)));
}

/// Multiplies row r of `size` values by factors[r % factors.len()].
pub(crate) fn scale_rows(x: &mut [f32], factors: &[f32], size: usize) {
    x.par_chunks_exact_mut(size).enumerate().for_each(|(row, x)| {
        let factor = factors[row % factors.len()];
        x.iter_mut().for_each(|x| *x *= factor);
    });
}

/// x = y * x.
pub(crate) fn multiply(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(PIECE).zip(y.par_chunks(PIECE)).for_each(|(x, y)| {
        vectorised!(|| x.iter_mut().zip(y).for_each(|(x, y)| *x *= y));
    });
}
