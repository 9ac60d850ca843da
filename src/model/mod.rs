//! The engine: a model streams through layer by layer, every weight is read once, norm outputs are folded where they are
//! made. The only floor that knows tensors.

pub mod arch;
mod attention;
mod checkpoint;
pub mod config;
mod deltanet;
mod embed;
mod encoder;
mod estimate;
mod finished;
mod forward;
mod fused;
mod head;
mod headers;
mod ids_json;
mod inventory;
mod keys;
mod linear;
mod load;
pub mod miniature;
mod moe;
mod mxfp4;
mod naming;
mod open;
mod ops;
mod plan;
#[doc(hidden)]
pub mod probe;
mod product;
mod quantised;
mod reader;
mod resume;
mod rope;
mod rope_config;
#[cfg(test)]
mod rope_spellings;
mod routing;
mod sequences;
mod spec;
mod tap;
mod tensor;
mod token_masks;
mod tokenize;
mod unused;
mod workspace;
mod wrappers;

/// The vector instructions that products in f32 and in bf16 use here.
pub fn vector_instructions() -> (&'static str, &'static str) {
    (product::Kind::best(false).name(), product::Kind::best(true).name())
}

pub use checkpoint::hex;
pub use estimate::estimate;
pub use finished::{checkpoints, may_be_of, place as place_checkpoint, remove as remove_checkpoints};
pub use forward::extract;
pub use ids_json::no_sequences;
pub use open::{OpenModel, SYNTHETIC_KEY, check_device, check_headers, describe, open};
pub use resume::is_checkpoint_of;
pub use tokenize::{hash_of_ids, load_tokens};
