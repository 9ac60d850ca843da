//! The scores of attention that exist at once.

/// Bytes of attention scores that exist at once on a GPU.
const SCORE_BYTES: usize = 256 << 20;

/// Queries whose scores exist at once on a GPU.
pub fn score_queries(heads: usize, positions: usize) -> usize {
    (SCORE_BYTES / 4 / heads / positions).clamp(1, positions)
}

/// Most scores of so many queries: of all heads, with keys that one of the queries sees.
pub fn scores(heads: usize, queries: usize, positions: usize, window: Option<usize>) -> usize {
    heads * queries * window.map_or(positions, |window| positions.min(window + queries))
}
