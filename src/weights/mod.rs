//! From stored bytes to weights: checkpoints, their headers, prefetching, and conversion to
//! tensors. This room does not depend on the pass.

pub mod checkpoint;
mod entry;
mod fused;
pub mod headers;
pub mod load;
mod open;
pub mod plan;
pub mod reader;
mod safetensors_headers;
mod samples;
mod strided;
mod torch;
mod unused;
mod wrappers;

pub use open::{
    Described, Description, OpenModel, SYNTHETIC_KEY, ShardPlan, check_device, check_headers, describe, open,
};
