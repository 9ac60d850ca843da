//! The beginning of a safetensors file, for code that reads the header only.

/// The number of bytes before the header. They hold its length.
pub const LENGTH: u64 = 8;
/// A larger header is treated as damaged. This is the limit of the safetensors library.
pub const MAX_HEADER: u64 = 100_000_000;
