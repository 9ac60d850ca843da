//! What a way of storing weights is: which tensors, and how their bytes become values.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::look::Look;
use super::piece::{Announced, Piece};
use crate::error::Result;

/// A way of storing the weight [out, in] of a projection, or a stack [experts, out, in] of such, in
/// tensors of codes and scales.
pub struct Format {
    /// As people call it.
    pub name: &'static str,
    /// How the weight is stored, if it is stored so: decided by names, types and shapes of the
    /// tensors at hand, with settings for what these cannot tell.
    ///
    /// # Errors
    /// Where the weight is stored so, and a tensor is missing or has another shape than the weight,
    /// or a setting says otherwise.
    pub detect: fn(&Look) -> Detected,
    /// The tensors that a release with these settings has for a weight that it quantises; none
    /// where the settings are not of this format. For plans that are made from a config alone.
    pub announced: fn(&Look) -> Option<Vec<Announced>>,
}

/// How a weight is stored, if it is stored in a format.
pub(super) type Detected = Result<Option<Arc<dyn Coding>>>;

/// How one weight is stored.
pub trait Coding: Debug + Send + Sync {
    /// In words, for the record: "FP8 E4M3, one scale for each 128 × 128".
    fn words(&self) -> String;

    /// The tensors that hold it, the codes first.
    fn pieces(&self) -> &[Piece];

    /// Columns of its rows.
    fn columns(&self) -> usize;

    /// Whether every value is exact in bf16; else values are f32.
    fn exact_in_bf16(&self) -> bool {
        false
    }

    /// What unpacks it on a GPU; without one it is unpacked here, and goes there as numbers.
    fn kernel(&self) -> Option<Kernel> {
        None
    }

    /// What stays in the memory of the CPU of rows of one matrix, from the bytes of its pieces, in
    /// their order. Pieces that are cut by rows hold those of `rows` rows and of no others,
    /// beginning where a row of every piece begins; pieces that are not are there whole, and so
    /// are all rows then. Of these the rows `own` are wanted.
    ///
    /// # Errors
    /// What no value can be made of: codes and scales that are NaN, indices out of range.
    fn keep(&self, pieces: Vec<Vec<u8>>, rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong>;

    /// Whether nothing is kept but the rows that are wanted, however many are read for them; else
    /// all of these stay.
    fn keeps_own_rows(&self) -> bool {
        false
    }

    /// The numbers of row `row` of what is kept, from column `from` on, as many as `to` has room
    /// for.
    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]);

    /// The values of `rows` rows of one matrix, [rows, in], from pieces as for `keep`.
    ///
    /// # Errors
    /// As `keep`.
    fn decode(&self, pieces: Vec<Vec<u8>>, rows: usize) -> std::result::Result<Decoded, Wrong> {
        let kept = self.keep(pieces, rows, 0..rows)?;
        let columns = self.columns();
        let mut values = vec![0.0; rows * columns];
        for (row, values) in values.chunks_exact_mut(columns.max(1)).enumerate() {
            self.numbers(&kept.parts, kept.above + row, 0, values);
        }
        Ok(Decoded::F32(values))
    }
}

/// What stays in memory of a weight in codes.
#[derive(Debug)]
pub struct Kept {
    /// In the order of the format.
    pub parts: Vec<Vec<u8>>,
    /// Rows above the first one that is wanted.
    pub above: usize,
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
