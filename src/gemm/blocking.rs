//! Block sizes of matrix products.

/// Words of the inner dimension per block. A panel of a weight then fits the L1 cache.
pub(super) const DEPTH: usize = 256;
/// The most bytes of packed rows of x at the same time.
pub(super) const PACKED_BYTES: usize = 16 << 20;
/// The largest number of weight panels per task. Together they fit the L2 cache.
pub(super) const MAX_PANELS: usize = 16;
/// Rows of x that stay in the L2 cache while all panels are multiplied with them.
pub(super) const GROUP_ROWS: usize = 96;
/// The largest number of tiles that a task packs.
pub(super) const TILES_PER_PACK: usize = 16;
/// Tasks per thread, which balance the load if other programs use the CPU.
pub(super) const TASKS_PER_THREAD: usize = 4;
