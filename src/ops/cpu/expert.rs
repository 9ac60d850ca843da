//! A feed-forward network on some of the rows, added to the residual stream, with scratch memory
//! that is reused between calls.

use rayon::prelude::*;

use super::activation::activate;
use super::pieces::PIECE;
use super::project::multiply;
use crate::error::Result;
use crate::gemm::{Lhs, Scratch};
use crate::ops::operands::FeedForward;
use crate::vector::vectorised;

/// residual[rows[i]] += weights[i] * network(x[rows[i]]), or network(weights[i] * x[rows[i]]) if
/// `on_input`. Both tensors are [tokens, hidden]. The caller has checked that `rows` are ascending
/// and within bounds, and that each has a weight.
pub(crate) fn add_expert(
    residual: &mut [f32],
    x: &[f32],
    hidden: usize,
    network: &FeedForward,
    (rows, weights): (&[u32], &[f32]),
    buffers: &mut [Scratch; 3],
) -> Result<()> {
    let FeedForward { gate, up, down, activation, on_input, rounded } = network;
    let count = rows.len();
    let (up_width, (width, _)) = (up.sizes()?.1, down.sizes()?);
    let [first, second, result] = buffers;
    let (inner, result) = (first.reserve(count * up_width), result.reserve(count * hidden));
    let weighed: Vec<f32>;
    let x = if *on_input {
        let each = rows.iter().zip(weights);
        weighed = each.flat_map(|(row, w)| x[*row as usize * hidden..][..hidden].iter().map(move |x| x * w)).collect();
        Lhs { values: &weighed, stride: hidden, rows: count, columns: hidden, indices: None }
    } else {
        Lhs { values: x, stride: hidden, rows: count, columns: hidden, indices: Some(rows) }
    };
    match gate {
        Some(gate) => {
            let gates = second.reserve(count * width);
            multiply(&x, &[*gate, *up], *rounded, &mut [gates, inner])?;
            activate(*activation, Some(gates), inner, up_width);
        }
        None => {
            multiply(&x, &[*up], *rounded, &mut [inner])?;
            activate(*activation, None, inner, up_width);
        }
    }
    // If one projection computes both gate and up, the activation is in the first half of each row.
    let inner = Lhs { values: inner, stride: up_width, rows: count, columns: width, indices: None };
    multiply(&inner, &[*down], *rounded, &mut [result])?;
    let ones: Vec<f32>;
    let weights = if *on_input {
        ones = vec![1.0; count];
        &ones
    } else {
        weights
    };
    add_rows(residual, result, hidden, (rows, weights));
    Ok(())
}

/// to[rows[i]] += weights[i] * y[i]. `to` is [tokens, hidden] and `y` [rows, hidden]; `rows` are
/// ascending and within bounds.
pub(crate) fn add_rows(to: &mut [f32], y: &[f32], hidden: usize, (rows, weights): (&[u32], &[f32])) {
    // Rows are ascending: each is split off the part after the previous one.
    let mut places = Vec::with_capacity(rows.len());
    let (mut behind, mut cut) = (to, 0);
    for row in rows {
        let (_, from) = behind.split_at_mut((*row as usize - cut) * hidden);
        let (values, rest) = from.split_at_mut(hidden);
        places.push(values);
        (behind, cut) = (rest, *row as usize + 1);
    }
    let rows_per_piece = PIECE / hidden + 1;
    let pieces = places.par_chunks_mut(rows_per_piece).zip(y.par_chunks(rows_per_piece * hidden));
    pieces.zip(weights.par_chunks(rows_per_piece)).for_each(|((rows, values), weights)| {
        for ((row, y), weight) in rows.iter_mut().zip(values.chunks_exact(hidden)).zip(weights) {
            vectorised!(|| row.iter_mut().zip(y).for_each(|(row, y)| *row += weight * y));
        }
    });
}

/// What the last call of `add_expert` left in its buffers, for `rows` rows: the input of the down
/// projection, [rows, width], and the output, [rows, hidden].
pub(crate) fn computed(
    buffers: &mut [Scratch; 3],
    rows: usize,
    (up_width, width): (usize, usize),
    hidden: usize,
) -> [Vec<f32>; 2] {
    let [first, _, result] = buffers;
    let inner = first.reserve(rows * up_width).chunks_exact(up_width).flat_map(|row| &row[..width]).copied().collect();
    [inner, result.reserve(rows * hidden).to_vec()]
}
