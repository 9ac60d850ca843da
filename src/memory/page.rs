//! Sizes of pages and of the blocks that are mapped in pages of their own.

/// Size of an ordinary page in bytes.
pub const PAGE: usize = 4096;

/// Blocks of at least this size in bytes are mapped by the program itself. They can begin anywhere
/// in a page, and so be read into directly. Below this size the cost of a read is its latency.
pub const LARGE: usize = 256 << 10;
