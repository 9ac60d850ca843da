//! What a way of storing weights is: which tensors, and how their bytes become values.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use safetensors::Dtype;

use super::look::Look;
use crate::error::Result;

/// A way of storing the weight [out, in] of a projection, or a stack [experts, out, in] of such, in tensors of codes and scales.
pub struct Format {
    /// As people call it.
    pub name: &'static str,
    /// How the weight is stored, if it is stored so: decided by names, types and shapes of the tensors at hand, with settings for what
    /// these cannot tell.
    ///
    /// # Errors
    /// Where the weight is stored so, and a tensor is missing or has another shape than the weight, or a setting says otherwise.
    pub detect: fn(&Look) -> Result<Option<Arc<dyn Coding>>>,
    /// The tensors that a release with these settings has for a weight that it quantises; none where the settings are not of this
    /// format. For plans that are made from a config alone.
    pub announced: fn(&Look) -> Option<Vec<Announced>>,
}

/// A tensor as it will be: its name, type and shape.
pub type Announced = (String, Dtype, Vec<usize>);

/// How one weight is stored.
pub trait Coding: Debug + Send + Sync {
    /// In words, for the record: "FP8 E4M3, one scale for each 128 × 128".
    fn words(&self) -> String;

    /// The tensors that hold it, the codes first.
    fn pieces(&self) -> &[Piece];

    /// Whether every value is exact in bf16; else values are f32.
    fn exact_in_bf16(&self) -> bool {
        false
    }

    /// What unpacks it on a GPU; without one it is unpacked here, and goes there as numbers.
    fn kernel(&self) -> Option<Kernel> {
        None
    }

    /// The values of rows of one matrix, [rows, in], from the bytes of its pieces, in their order. Pieces that are cut by rows hold
    /// those of these rows and of no others, beginning where a row of every piece begins; pieces that are not are there whole, and
    /// so are all rows then.
    ///
    /// # Errors
    /// What no value can be made of: codes and scales that are NaN, indices out of range.
    fn decode(&self, pieces: &[Vec<u8>], rows: usize) -> std::result::Result<Decoded, Wrong>;
}

/// Values in the narrower of the types that hold all of them exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// What is wrong with the numbers of a piece.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its place among the pieces.
    pub piece: usize,
    /// A sentence's end, behind the name of the tensor: "element 3 is NaN".
    pub what: String,
}

impl Wrong {
    pub fn new(piece: usize, what: impl Into<String>) -> Self {
        Self { piece, what: what.into() }
    }
}

/// Kernels that unpack.
#[derive(Clone, Copy)]
pub enum Kernel {
    Mxfp4,
}

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
    /// Each of its rows belongs to so many rows of a matrix, which are not told apart; none where all of it belongs to every row.
    pub rows: Option<usize>,
}

impl Along {
    /// All of it belongs to every row.
    pub const WHOLE: Along = Along { stacked: false, rows: None };

    /// A row for each `rows` rows of a matrix, which is alone or one of a stack.
    pub fn rows(stacked: bool, rows: usize) -> Self {
        Self { stacked, rows: Some(rows) }
    }

    /// Which of `bytes` bytes belong to rows `rows` of `out` of matrix `slice`, where the tensor stacks `experts` of them.
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

/// The rows around `rows` of `out` that can be decoded by themselves: from where a row of every piece begins, to where one ends.
pub fn window(pieces: &[Piece], rows: &Range<usize>, out: usize) -> Range<usize> {
    let step = pieces.iter().filter_map(|piece| piece.along.rows).fold(1, lcm).clamp(1, out.max(1));
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
        assert_eq!(window(&pieces(&[Some(1), None]), &(5..7), 20), 5..7);
        assert_eq!(window(&pieces(&[Some(20), None]), &(5..7), 20), 0..20);
        assert_eq!(window(&pieces(&[Some(4), Some(6)]), &(13..14), 100), 12..24);
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
        assert_eq!(Along::WHOLE.own_bytes(4, (1, 3), &(8..20), 20), 0..4);
    }
}
