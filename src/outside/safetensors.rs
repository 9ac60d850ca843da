//! The begin of a safetensors file, for whoever reads its header alone.

/// Bytes in front of the header: its length.
pub const LENGTH: u64 = 8;
/// A header larger than this is taken for damage (the safetensors library's own limit).
pub const MAX_HEADER: u64 = 100_000_000;
