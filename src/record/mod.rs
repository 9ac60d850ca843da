//! Plain records: everything that crosses a floor or a wire, and nothing that computes.
//!
//! A record is serialisable, owns its data and knows no tensors, no files and no script engine. Shapes and units stand
//! at the fields.

mod activations;
mod claim;
mod criterion;
mod estimate;
mod finding;
mod interval;
mod ladders;
mod model;
pub mod number;
mod perplexity;
mod profile;
mod request;
mod site;
mod sweep;

pub use activations::*;
pub use claim::*;
pub use criterion::*;
pub use estimate::*;
pub use finding::*;
pub use interval::*;
pub use ladders::*;
pub use model::*;
pub use perplexity::*;
pub use profile::*;
pub use request::*;
pub use site::*;
pub use sweep::*;

/// A record as JSON, with floats as short as they print: an f32 of 5.8 reads 5.8.
pub fn plain(record: &impl serde::Serialize) -> serde_json::Value {
    let text = serde_json::to_string(record).expect("records are JSON");
    serde_json::from_str(&text).expect("just written")
}
