//! Plain records: everything that crosses a floor or a wire, and nothing that computes.
//!
//! A record is serialisable, owns its data and knows no tensors, no files and no script engine. Shapes and units stand
//! at the fields.

mod activations;
mod criterion;
mod estimate;
mod finding;
mod interval;
mod model;
mod request;

pub use activations::*;
pub use criterion::*;
pub use estimate::*;
pub use finding::*;
pub use interval::*;
pub use model::*;
pub use request::*;
