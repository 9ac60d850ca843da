//! How large the blocks are into which a product is cut.

/// Words of the inner dimension per block: a panel of a weight then fits the first-level cache.
pub const DEPTH: usize = 256;
/// Bytes of packed rows of x at once.
pub const PACKED_BYTES: usize = 16 << 20;
/// Panels of a weight per task at most: together they stay in the second-level cache.
pub const MAX_PANELS: usize = 16;
/// Tiles of x that stay in the second-level cache while the panels pass.
pub const GROUP_ROWS: usize = 96;
/// Tiles that a task packs at most.
pub const TILES_PER_PACK: usize = 16;
/// Tasks per thread, to even out what else runs on the machine.
pub const TASKS_PER_THREAD: usize = 4;
