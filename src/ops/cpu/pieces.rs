//! The granularity at which work is divided among threads.

/// Number of values in one piece of parallel work: small enough to balance the load, large enough
/// to hide the overhead.
pub(super) const PIECE: usize = 1 << 15;
