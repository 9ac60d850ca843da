//! Observers: during a pass they receive the tensors at sites and compute results from them.
//!
//! A site that no observer wants costs nothing. To measure something new, write an observer. To
//! make a new site available, pass its tensor to `show` where it is computed (`pass/layer.rs`).

mod full;
mod ladder;
mod observer;

pub use full::FullWriter;
pub use ladder::{LadderFold, PENDING_BYTES, record_bytes};
pub use observer::{Observer, Observers, State};
