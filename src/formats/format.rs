//! The interface of a storage format: which tensors hold a weight, and how their bytes become
//! values.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use safetensors::Dtype;

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

    /// Number of columns.
    fn columns(&self) -> usize;

    /// Whether every value is exact in bf16. Otherwise values are f32.
    fn exact_in_bf16(&self) -> bool {
        false
    }

    /// The kernel that decodes the stored pieces on a GPU as they are. Without one, `for_gpu`
    /// decides.
    fn kernel(&self) -> Option<Kernel> {
        None
    }

    /// Returns the bytes that stay in the memory of the CPU for rows of one matrix, from the bytes
    /// of its pieces, in their order. A piece that is divided by rows holds exactly `rows` rows,
    /// which begin where a row of every piece begins. Any other piece is complete, and then `rows`
    /// is the whole matrix. Of these rows, `own` are wanted.
    ///
    /// # Errors
    /// An error if no value can be made: codes or scales are NaN, or indices are out of range.
    fn keep(&self, pieces: Vec<Vec<u8>>, rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong>;

    /// Whether `keep` returns the wanted rows only. Otherwise it returns all rows.
    fn keeps_own_rows(&self) -> bool {
        false
    }

    /// Decodes row `row` of what `keep` returned, from column `from` on, until `to` is full.
    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]);

    /// The kernel that decodes what `keep` returned on a GPU, and the pieces that it needs. Without
    /// one the CPU decodes, and the GPU receives numbers.
    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)>;

    /// Decodes `rows` rows of one matrix, [rows, in], from pieces as for `keep`.
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

/// Kernels that decode pieces on a GPU. Pieces are bytes unless something else is said. The codes
/// are the first piece, and the scales the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// Codes E2M1, two in a byte, with a power of two for each 32.
    Mxfp4,
    /// Codes E4M3, with a scale of a type for each block of rows and columns.
    Fp8 { scales: Dtype, block: [usize; 2] },
    /// Codes E2M1, two in a byte, with a scale E4M3 for each 16, which `number` multiplies or
    /// divides.
    Nvfp4 { number: f32, divides: bool },
    /// Integers as `affine::Integers` has them: codes, scales, zeros and, in 32 bits, groups of
    /// columns; the last two may be empty. What they stand for is multiplied by `factor`.
    Integers { bits: usize, row_bytes: usize, groups: usize, columns: usize, scales: Dtype, factor: f32 },
    /// Codes of four bits, the high half of a byte first, with a scale for each `block` of them
    /// and, as third piece, a table of their values; scales and table are f32.
    FourBits { block: usize },
}
