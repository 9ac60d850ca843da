//! Products that are looked at piece by piece and never stored.

use rayon::prelude::*;

use super::cpu;
use super::operands::Projection;
use super::project;
use crate::error::{Result, fault};
use crate::gemm::Seen;
use crate::tensor::Tensor;
use crate::vocabulary::Order;

/// Outputs and rows of the pieces of a product that a GPU has computed.
const COLUMNS: usize = 512;
const ROWS: usize = 32;
/// The most bytes of products that a GPU has computed.
const BYTES: usize = 64 << 20;

/// Multiplies each of `xs` [rows, input] with `weight` [out, input] and calls `see` with the
/// products piece by piece, as `gemm::products_seen` does. `rounded` is as in `project`.
pub fn products_seen<S: Send>(
    xs: &[Tensor],
    weight: &Tensor,
    rounded: bool,
    begin: impl Fn() -> S + Sync,
    see: impl Fn(&mut S, Seen) + Sync,
) -> Result<Vec<S>> {
    let Some(first) = xs.first() else { return Ok(Vec::new()) };
    let ((rows, input), (out, expected)) = (first.dims2()?, weight.dims2()?);
    if expected != input || xs.iter().any(|x| x.dims() != first.dims()) {
        fault!("a projection of {expected} inputs meets rows of {input}, or of several sizes");
    }
    if matches!(first, Tensor::Cpu(_)) {
        return cpu::products_seen(xs, weight, rounded, begin, see);
    }
    let projection = Projection { weight, order: Order::OutIn, bias: None };
    let product = |x: &Tensor| project(x, &[projection], rounded)?.remove(0).values();
    let all = xs.iter().map(product).collect::<Result<Vec<_>>>()?;
    let pieces: Vec<_> = (0..out).step_by(COLUMNS).map(|first| first..(first + COLUMNS).min(out)).collect();
    let states = pieces.into_par_iter().map(|columns| {
        let mut state = begin();
        for row in (0..rows).step_by(ROWS) {
            let rows = row..(row + ROWS).min(rows);
            let mut first = Vec::new();
            for (operand, all) in all.iter().enumerate() {
                let of_row = |row: usize| &all[row * out..][columns.clone()];
                let mut values: Vec<f32> = rows.clone().flat_map(of_row).copied().collect();
                let piece =
                    Seen { operand, rows: rows.clone(), columns: columns.clone(), values: &mut values, first: &first };
                see(&mut state, piece);
                if operand == 0 {
                    first = values;
                }
            }
        }
        state
    });
    Ok(states.collect())
}

/// Number of outputs of a piece.
pub fn seen_columns(weight: &Tensor, rounded: bool) -> Result<usize> {
    match weight {
        Tensor::Cuda(_) => Ok(COLUMNS),
        _ => cpu::seen_columns(weight, rounded),
    }
}

/// The most rows of each of `xs` operands for `products_seen`.
pub fn seen_rows(weight: &Tensor, xs: usize) -> usize {
    match weight {
        Tensor::Cuda(_) => BYTES / (weight.dims()[0] * 4 * xs).max(1),
        _ => usize::MAX,
    }
}
