//! The sizes of MXFP4, the four-bit floats of gpt-oss (OCP Microscaling Formats v1.0).

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Bytes of a block: two values each, the low nibble first.
pub const BLOCK_BYTES: usize = BLOCK / 2;
