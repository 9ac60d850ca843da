//! The tensors that hold a weight together, and how they lie along its rows.

use std::ops::Range;

use safetensors::Dtype;

/// A tensor as it will be: its name, type and shape.
pub type Announced = (String, Dtype, Vec<usize>);

/// One of the tensors that hold a weight together.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// In the whole model.
    pub name: String,
    pub dtype: Dtype,
    /// Of the whole tensor, stacks included.
    pub shape: Vec<usize>,
    pub along: Along,
}

/// How a tensor lies along the weight that it holds a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// The first dimension has an entry for each expert of a stack.
    pub stacked: bool,
    /// Each of its rows belongs to so many rows of a matrix; none where all of it belongs to every
    /// row.
    pub rows: Option<usize>,
}

impl Along {
    /// All of it belongs to all of the weight, which is decoded whole.
    pub const WHOLE: Along = Along { stacked: false, rows: None };
    /// For `rows`: one row for all rows of a matrix, wherever those that are decoded begin.
    pub const EVERY: usize = usize::MAX;

    /// A row for each `rows` rows of a matrix, which is alone or one of a stack.
    pub fn rows(stacked: bool, rows: usize) -> Self {
        Self { stacked, rows: Some(rows) }
    }

    /// Which of `bytes` bytes belong to rows `rows` of `out` of matrix `slice`, where the tensor
    /// stacks `experts` of them.
    pub fn own_bytes(
        self,
        bytes: u64,
        (slice, experts): (usize, usize),
        rows: &Range<usize>,
        out: usize,
    ) -> Range<u64> {
        let matrix = if self.stacked { bytes / experts.max(1) as u64 } else { bytes };
        let begin = if self.stacked { slice as u64 * matrix } else { 0 };
        let Some(step) = self.rows else { return begin..begin + matrix };
        let row = matrix / out.div_ceil(step).max(1) as u64;
        begin + (rows.start / step) as u64 * row..begin + rows.end.div_ceil(step) as u64 * row
    }
}

/// The rows around `rows` of `out` that can be decoded by themselves: from where a row of every
/// piece begins, to where one ends.
pub fn window(pieces: &[Piece], rows: &Range<usize>, out: usize) -> Range<usize> {
    let steps = pieces.iter().map(|piece| piece.along.rows.unwrap_or(out)).filter(|step| *step != Along::EVERY);
    let step = steps.fold(1, lcm).clamp(1, out.max(1));
    rows.start / step * step..rows.end.next_multiple_of(step).min(out)
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a.max(1)
    };
    (a / gcd(a, b)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(rows: Option<usize>) -> Piece {
        Piece { name: String::new(), dtype: Dtype::U8, shape: Vec::new(), along: Along { stacked: false, rows } }
    }

    #[test]
    fn windows_begin_and_end_where_pieces_do() {
        let pieces = |all: &[Option<usize>]| all.iter().map(|rows| piece(*rows)).collect::<Vec<_>>();
        assert_eq!(window(&pieces(&[Some(1)]), &(5..7), 20), 5..7);
        assert_eq!(window(&pieces(&[Some(1), Some(4)]), &(5..7), 20), 4..8);
        assert_eq!(window(&pieces(&[Some(1), Some(8)]), &(17..18), 20), 16..20);
        assert_eq!(window(&pieces(&[Some(1), None]), &(5..7), 20), 0..20);
        assert_eq!(window(&pieces(&[Some(4), Some(6)]), &(13..14), 100), 12..24);
        assert_eq!(window(&pieces(&[Some(1), Some(Along::EVERY)]), &(5..7), 20), 5..7);
        // A block larger than the matrix is all of it.
        assert_eq!(window(&pieces(&[Some(1), Some(128)]), &(5..7), 20), 0..20);
    }

    #[test]
    fn bytes_of_rows_of_a_matrix_in_a_stack() {
        let codes = Along::rows(true, 1);
        assert_eq!(codes.own_bytes(3 * 20 * 5, (2, 3), &(4..6), 20), 220..230);
        let grid = Along::rows(true, 8);
        // Three rows of scales of two bytes in each matrix.
        assert_eq!(grid.own_bytes(3 * 3 * 2, (1, 3), &(8..20), 20), 8..12);
        assert_eq!(Along::rows(true, Along::EVERY).own_bytes(3 * 4, (2, 3), &(8..20), 20), 8..12);
        assert_eq!(Along::rows(false, Along::EVERY).own_bytes(4, (0, 1), &(8..20), 20), 0..4);
        assert_eq!(Along::WHOLE.own_bytes(4, (1, 3), &(8..20), 20), 0..4);
    }
}
