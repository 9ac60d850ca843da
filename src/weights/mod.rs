//! From stored bytes to weights: checkpoints, their headers, what is read ahead and how it becomes tensors. Knows nothing of the
//! pass that uses them.

pub mod checkpoint;
mod fused;
pub mod headers;
pub mod load;
mod open;
pub mod plan;
pub mod reader;
mod safetensors_headers;
mod torch;
mod unused;
mod wrappers;

pub use open::{Described, OpenModel, SYNTHETIC_KEY, Share, check_device, check_headers, describe, open};
