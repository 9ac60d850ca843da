//! Texts to tokens: tokenizing, windows of one length, ids that are there already. Knows no tensors.

mod encoder;
mod ids_json;
mod sequences;
mod token_masks;
mod tokenize;

pub use ids_json::no_sequences;
pub use tokenize::{hash_of_ids, load_tokens};
