//! Primitives of models: loading them, tokens for them, and passes through them.

pub(crate) mod extract;
mod lanes;
pub(crate) mod perplexity;
pub(crate) mod requests;
pub(crate) mod texts;
pub(crate) mod tokens;
