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
mod received;
mod rope;
mod rows;
mod scan;
mod short_conv;

pub(super) use activation::{activate, gate_halves, interleaved_swiglu, sigmoid_gate};
pub(crate) use attend::chunk_queries;
pub(super) use attend::{attend, attend_and_count};
pub(crate) use delta_rule::CHUNK as DELTA_CHUNK;
pub(super) use delta_rule::{Heads, delta_rule};
pub(super) use expert::{add_expert, add_rows, computed};
pub(super) use gates::Gates;
pub(super) use norm::norm;
pub(super) use project::{products_seen, project, seen_columns};
pub(super) use rope::rotate;
pub(super) use rows::{add, multiply, scale, scale_rows};
pub(super) use scan::{PerHead, causal_conv, selective_scan};
pub(super) use short_conv::short_conv;
