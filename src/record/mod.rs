//! Plain records: all data that passes between floors of the program or over the wire. This room
//! computes nothing.
//!
//! A record is serialisable, owns its data, and does not depend on tensors, files or the script
//! engine. The fields document shapes and units.

mod activations;
mod claim;
mod criterion;
mod estimate;
mod field;
mod finding;
mod hits;
mod interval;
mod ladders;
mod lane;
mod measures;
mod model;
pub mod number;
pub mod option;
pub mod option_types;
mod perplexity;
mod profile;
mod request;
mod site;
mod sweep;
mod writes;

pub use activations::*;
pub use claim::*;
pub use criterion::*;
pub use estimate::*;
pub use field::field;
pub use finding::*;
pub use hits::*;
pub use interval::*;
pub use ladders::*;
pub use lane::*;
pub use measures::*;
pub use model::*;
pub use perplexity::*;
pub use profile::*;
pub use request::*;
pub use site::*;
pub use sweep::*;
pub use writes::*;

/// A record as JSON, with floats in their shortest form: an f32 of 5.8 is 5.8.
pub fn plain(record: &(impl serde::Serialize + ?Sized)) -> serde_json::Value {
    let text = serde_json::to_string(record).expect("records are JSON");
    serde_json::from_str(&text).expect("just written")
}
