//! The interface of a storage format: which tensors hold a weight, and how their bytes become
//! values.

use std::fmt::Debug;
use std::sync::Arc;

use half::bf16;

use super::look::Look;
use super::piece::{Announced, Piece};
use crate::error::Result;

/// A format that stores the weight [out, in] of a projection, or a stack [experts, out, in] of such
/// weights, in tensors of codes and scales.
pub struct Format {
    /// The name that people use.
    pub name: &'static str,
    /// How the weight is stored, or None if it is not stored in this format. The names, types and
    /// shapes of the tensors decide, with the settings for what these cannot tell.
    ///
    /// # Errors
    /// An error if the weight is stored in this format, and a tensor is missing or has a shape that
    /// does not fit the weight, or a setting contradicts the tensors.
    pub detect: fn(&Look) -> Detected,
    /// The tensors that a release with these settings has for a quantised weight, or None if the
    /// settings are of another format. Plans that are made from a config alone use it.
    pub announced: fn(&Look) -> Option<Vec<Announced>>,
}

/// The coding of a weight, or None if the weight is not stored in the format.
pub(super) type Detected = Result<Option<Arc<dyn Coding>>>;

/// How one weight is stored.
pub trait Coding: Debug + Send + Sync {
    /// A description for the record: "FP8 E4M3, one scale for each 128 × 128".
    fn words(&self) -> String;

    /// The tensors that hold the weight, the codes first.
    fn pieces(&self) -> &[Piece];

    /// Whether every value is exact in bf16. Otherwise values are f32.
    fn exact_in_bf16(&self) -> bool {
        false
    }

    /// The kernel that unpacks the weight on a GPU. Without one the CPU unpacks it, and the GPU
    /// receives numbers.
    fn kernel(&self) -> Option<Kernel> {
        None
    }

    /// The decoder of a few codes at a time, if the weight can stay in codes in the memory of the
    /// CPU.
    fn rows(&self) -> Option<&dyn Rows> {
        None
    }

    /// Decodes rows of one matrix, [rows, in], from the bytes of its pieces, in their order. A
    /// piece that is divided by rows holds exactly these rows, which begin where a row of every
    /// piece begins. Any other piece is complete, and then `rows` is the whole matrix.
    ///
    /// # Errors
    /// An error if no value can be made: codes or scales are NaN, or indices are out of range.
    fn decode(&self, pieces: &[Vec<u8>], rows: usize) -> std::result::Result<Decoded, Wrong>;
}

/// The decoder of a weight that stays in codes, for products that decode where they need numbers.
pub trait Rows: Sync {
    /// Rearranges the pieces of `rows` rows, given as for `Coding::decode`, so that a row is
    /// quickly read. The result has as many bytes.
    ///
    /// # Errors
    /// As `Coding::decode`.
    fn kept(&self, pieces: Vec<Vec<u8>>, rows: usize) -> std::result::Result<Vec<Vec<u8>>, Wrong>;

    /// Decodes row `row` of what `kept` returned, from column `from` on, until `to` is full. The
    /// numbers are those of `Coding::decode`.
    fn decode(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]);
}

/// `Coding::decode` for a coding with rows of `input` columns.
pub(super) fn decode_rows(
    by: &dyn Rows,
    pieces: &[Vec<u8>],
    rows: usize,
    input: usize,
) -> std::result::Result<Decoded, Wrong> {
    let kept = by.kept(pieces.to_vec(), rows)?;
    let mut values = vec![0.0; rows * input];
    for (row, values) in values.chunks_exact_mut(input.max(1)).enumerate() {
        by.decode(&kept, row, 0, values);
    }
    Ok(Decoded::F32(values))
}

/// Decoded values, in the narrower of the two types that hold all of them exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// A fault in the numbers of a piece.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Index of the piece.
    pub piece: usize,
    /// The end of a sentence that begins with the name of the tensor: "element 3 is NaN".
    pub what: String,
}

impl Wrong {
    pub fn new(piece: usize, what: impl Into<String>) -> Self {
        Self { piece, what: what.into() }
    }
}

/// Kernels that unpack weights on a GPU.
#[derive(Clone, Copy)]
pub enum Kernel {
    Mxfp4,
}
