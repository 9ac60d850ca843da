//! The short convolution of linear attention: depthwise and causal over positions, then SiLU, on
//! some columns of a projection. The output is grouped by head, as the products per head need it.
//! All is f32.

use rayon::prelude::*;

use crate::ops::operands::ShortConv;
use crate::vector::{exp, sum, vectorised};

/// Added to the sum of squares before the square root (transformers `l2norm`).
const UNIT_EPS: f32 = 1e-6;

/// `x` [sequences * positions, columns], `weight` [channels, 1, kernel], to [sequences, heads,
/// positions, width].
pub(crate) fn short_conv(op: &ShortConv, x: &[f32], columns: usize, weight: &[f32], kernel: usize) -> Vec<f32> {
    let (positions, width) = (op.positions, op.width);
    let sequences = x.len() / (columns * positions);
    let mut out = vec![0f32; sequences * op.heads.len() * positions * width];
    out.par_chunks_exact_mut(positions * width).enumerate().for_each(|(i, out)| {
        let source = op.heads[i % op.heads.len()];
        let weight = &weight[source.first_channel * kernel..][..width * kernel];
        // [kernel, width]; the last tap multiplies the position itself
        let taps: Vec<f32> = (0..kernel).flat_map(|j| weight.iter().skip(j).step_by(kernel)).copied().collect();
        let first_row = i / op.heads.len() * positions;
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            vectorised!(|| {
                for (back, taps) in taps.chunks_exact(width).rev().enumerate().take(t + 1) {
                    let x = &x[(first_row + t - back) * columns + source.first_column..][..width];
                    out.iter_mut().zip(x).zip(taps).for_each(|((out, x), tap)| *out += tap * x);
                }
                out.iter_mut().for_each(|y| *y /= 1.0 + exp(-*y));
                if let Some(length) = op.length {
                    let factor = length / (sum(out, |y| y * y) + UNIT_EPS).sqrt();
                    out.iter_mut().for_each(|y| *y *= factor);
                }
            });
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::operands::Source;

    #[test]
    fn taps_look_back_from_each_position_and_stop_at_the_sequence() {
        // Two sequences of three positions and two columns. The head is column 1.
        let x = [0.0f32, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 10.0, 0.0, 20.0, 0.0, 30.0];
        // The weight of channel 1 is a half for the previous position and one for the position
        // itself.
        let weight = [9.0f32, 9.0, 0.5, 1.0];
        let heads = vec![Source { first_column: 1, first_channel: 1 }];
        let op = ShortConv { positions: 3, width: 1, heads, length: None };
        let y = short_conv(&op, &x, 2, &weight, 2);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        for (y, x) in y.iter().zip([1.0, 2.5, 4.0, 10.0, 25.0, 40.0]) {
            assert!((y - silu(x)).abs() < 1e-6, "{y} for {x}");
        }
    }
}
