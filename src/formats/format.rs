//! What a way of storing weights is: which tensors, and how their bytes become values.

use std::fmt::Debug;
use std::sync::Arc;

use half::bf16;
use safetensors::Dtype;

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

    /// Whether every value is exact in bf16; else values are f32.
    fn exact_in_bf16(&self) -> bool {
        false
    }

    /// The kernel that makes numbers of the pieces on a GPU as they are stored, where nothing is to
    /// be done before; else what `Rows::for_gpu` says.
    fn kernel(&self) -> Option<Kernel> {
        None
    }

    /// What makes numbers of a few codes at a time, where they can stay as they are in the memory
    /// of the CPU.
    fn rows(&self) -> Option<&dyn Rows> {
        None
    }

    /// The values of rows of one matrix, [rows, in], from the bytes of its pieces, in their order.
    /// Pieces that are cut by rows hold those of these rows and of no others, beginning where a row
    /// of every piece begins; pieces that are not are there whole, and so are all rows then.
    ///
    /// # Errors
    /// What no value can be made of: codes and scales that are NaN, indices out of range.
    fn decode(&self, pieces: &[Vec<u8>], rows: usize) -> std::result::Result<Decoded, Wrong>;
}

/// A weight that stays in codes, and of which products make numbers where they need them.
pub trait Rows: Sync {
    /// What is kept of the pieces of `rows` rows, which are as for `Coding::decode`: as many bytes,
    /// in an order in which a row is quickly read.
    ///
    /// # Errors
    /// As `Coding::decode`.
    fn kept(&self, pieces: Vec<Vec<u8>>, rows: usize) -> std::result::Result<Vec<Vec<u8>>, Wrong>;

    /// The numbers of row `row` of what is kept, from column `from` on, as many as `to` has room
    /// for: those of `Coding::decode`.
    fn decode(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]);

    /// What goes to a GPU of what is kept, and the kernel that makes the same numbers of it there.
    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> (Kernel, Vec<Vec<u8>>);
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

/// Kernels that make numbers of pieces, which are bytes if nothing else is said. The codes are the
/// first piece, the scales the second.
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
