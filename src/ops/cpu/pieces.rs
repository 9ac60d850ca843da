//! How work is divided among threads.

/// Values per parallel piece: small enough to balance, large enough not to notice.
pub const PIECE: usize = 1 << 15;
