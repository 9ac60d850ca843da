//! What looks on while a model computes: the pass shows tensors at sites, observers keep what they are for.
//!
//! A site that no observer wants costs nothing. To measure something new, write an observer; to show a new site, show it
//! where it is computed (`pass/layer.rs`).

mod full;
mod ladder;
mod observer;

pub use full::FullWriter;
pub use ladder::{LadderFold, PENDING_BYTES, record_bytes};
pub use observer::{Observer, Observers, State};
