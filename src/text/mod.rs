//! From texts to token sequences: tokenisation, windows of equal length, and existing ids. This
//! room does not use tensors.

mod encoder;
mod ids_json;
mod sequences;
mod token_masks;
mod tokenize;
mod tokenizers;

pub use ids_json::no_sequences;
pub use tokenize::{hash_of_ids, load_tokens};
pub use tokenizers::Tokenizers;
