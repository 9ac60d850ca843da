//! CPU implementations of the operations of `ops`, which documents them. They work on slices of
//! contiguous rows and on all cores.

mod activation;
mod attend;
mod delta_rule;
mod expert;
mod gates;
mod norm;
mod pieces;
mod project;
mod rope;
mod rows;
mod scan;
mod short_conv;

pub use activation::{activate, interleaved_swiglu, sigmoid_gate, swiglu_halves};
pub use attend::{attend, chunk_queries};
pub use delta_rule::{CHUNK as DELTA_CHUNK, Heads, delta_rule};
pub use expert::add_expert;
pub use gates::Gates;
pub use norm::norm;
pub use project::project;
pub use rope::rotate;
pub use rows::{add, multiply, scale, scale_rows};
pub use scan::{PerHead, causal_conv, selective_scan};
pub use short_conv::short_conv;
