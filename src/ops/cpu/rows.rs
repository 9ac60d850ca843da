//! Adding into the residual stream in place.

use rayon::prelude::*;

use super::pieces::PIECE;
use super::vector::vectorised;

/// residual += x, value by value.
pub fn add(residual: &mut [f32], x: &[f32]) {
    residual.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(residual, x)| {
        vectorised(|| residual.iter_mut().zip(x).for_each(|(residual, x)| *residual += x));
    });
}
