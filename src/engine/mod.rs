//! The engine: a model streams through layer by layer, every weight is read once, norm outputs are folded where they are
//! made.

mod attention;
mod deltanet;
mod embed;
mod estimate;
mod finished;
mod forward;
mod head;
mod linear;
mod moe;
#[doc(hidden)]
pub mod probe;
mod resume;
mod rotary;
mod routing;
mod tap;
mod workspace;

pub use estimate::estimate;
pub use finished::{checkpoints, may_be_of, place as place_checkpoint, remove as remove_checkpoints};
pub use forward::extract;
pub use resume::is_checkpoint_of;
