//! How weights are stored where they are not plain floats: one file and one row of `FORMATS` for each way. Knows sizes and bytes,
//! no files and no tensors.

mod affine;
pub mod awq;
pub mod bitsandbytes;
mod format;
pub mod gptq;
pub mod int8;
pub mod mxfp4;
pub mod packed_int;
mod wrong;

pub use affine::Groups;
pub use format::{Format, Kernel, Piece};
pub use wrong::Wrong;

/// All that are read.
static FORMATS: &[&Format] = &[&mxfp4::MXFP4];

/// The format that the files have for the weight `name`: the first all of whose pieces are there.
pub fn find(name: &str, has: &dyn Fn(&str) -> bool) -> Option<&'static Format> {
    let complete =
        |format: &&&Format| (format.pieces)(&[1, 1]).iter().all(|piece| has(&format!("{name}{}", piece.ending)));
    FORMATS.iter().find(complete).copied()
}
