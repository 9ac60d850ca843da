//! The engine: it computes a model layer by layer, reads every weight once, and passes the tensors
//! at sites to observers.

mod attempt;
mod attention;
mod checkpoint_names;
mod deltanet;
mod embed;
mod estimate;
mod extract;
mod finished;
mod head;
mod kept;
mod lanes;
mod latent;
mod layer_embeddings;
mod linear;
mod mamba;
mod measuring;
mod moe;
pub mod observe;
mod pass;
#[doc(hidden)]
pub mod probe;
mod resume;
mod rotary;
mod rounding;
mod routing;
mod scores;
mod simulated;
mod workspace;

pub use checkpoint_names::{checkpoints, is_checkpoint_of};
pub use estimate::estimate;
pub use extract::{extract, pass_over};
pub use finished::{may_be_of, place as place_checkpoint, remove as remove_checkpoints};
pub use lanes::check_lanes;
pub use measuring::{Laddered, ladders};
