//! The tensors that together hold a weight, and how each is divided along the rows of the weight.

use std::ops::Range;

use safetensors::Dtype;

/// A tensor that a release is expected to have: its name, type and shape.
pub type Announced = (String, Dtype, Vec<usize>);

/// One of the tensors that hold a weight together.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The tensor's name in the whole model.
    pub name: String,
    pub dtype: Dtype,
    /// The shape of the whole tensor, stacks included.
    pub shape: Vec<usize>,
    pub along: Along,
}

/// How a tensor is divided along the weight of which it holds a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// True if the first dimension has an entry for each expert of a stack.
    pub stacked: bool,
    /// Number of rows of a matrix that each row of this tensor belongs to. None if the whole tensor
    /// belongs to every row.
    pub rows: Option<usize>,
}

impl Along {
    /// The whole tensor belongs to the whole weight, which is decoded at once.
    pub const WHOLE: Along = Along { stacked: false, rows: None };
    /// A value of `rows`: one row belongs to all rows of a matrix, wherever the decoded rows begin.
    pub const EVERY: usize = usize::MAX;

    /// A tensor that has a row for each `rows` rows of a matrix, which is alone or one of a stack.
    pub fn rows(stacked: bool, rows: usize) -> Self {
        Self { stacked, rows: Some(rows) }
    }

    /// The range of the tensor's `bytes` bytes that belongs to rows `rows` of `out` of matrix
    /// `slice`, where the tensor stacks `experts` matrices.
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

/// The smallest range of rows of `out` that includes `rows` and can be decoded by itself: it begins
/// where a row of every piece begins, and ends where one ends.
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
        // A block larger than the matrix covers all of it.
        assert_eq!(window(&pieces(&[Some(1), Some(128)]), &(5..7), 20), 0..20);
    }

    #[test]
    fn bytes_of_rows_of_a_matrix_in_a_stack() {
        let codes = Along::rows(true, 1);
        assert_eq!(codes.own_bytes(3 * 20 * 5, (2, 3), &(4..6), 20), 220..230);
        let grid = Along::rows(true, 8);
        // Each matrix has three rows of scales of two bytes.
        assert_eq!(grid.own_bytes(3 * 3 * 2, (1, 3), &(8..20), 20), 8..12);
        assert_eq!(Along::rows(true, Along::EVERY).own_bytes(3 * 4, (2, 3), &(8..20), 20), 8..12);
        assert_eq!(Along::rows(false, Along::EVERY).own_bytes(4, (0, 1), &(8..20), 20), 0..4);
        assert_eq!(Along::WHOLE.own_bytes(4, (1, 3), &(8..20), 20), 0..4);
    }
}
