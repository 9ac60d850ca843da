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

/// A record as JSON, with floats as short as they print: an f32 of 5.8 reads 5.8.
pub fn plain(record: &impl serde::Serialize) -> serde_json::Value {
    let text = serde_json::to_string(record).expect("records are JSON");
    serde_json::from_str(&text).expect("just written")
}
