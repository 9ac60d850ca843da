//! Sizes of pages and of the blocks that are mapped in pages of their own.

/// Size of an ordinary page in bytes.
pub const PAGE: usize = 4096;

/// CachingAllocator of at least this size in bytes get a mapping of their own.
pub(super) const LARGE: usize = 1 << 20;
