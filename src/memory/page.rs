//! Sizes of memory: of the system's pages, and of the blocks that are mapped in pages of their own.

/// Bytes of an ordinary page.
pub const PAGE: usize = 4096;

/// Blocks from this size on are mapped by themselves.
pub(super) const LARGE: usize = 1 << 20;
