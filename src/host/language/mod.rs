//! The language of scripts without its primitives: Rhai within limits, its errors as values, and
//! the texts and modules that every script can have. Nothing here knows a run of a script.

pub(crate) mod bounds;
pub(crate) mod catching;
pub(crate) mod closures;
pub mod deep;
pub(crate) mod growth;
pub(crate) mod json;
pub(crate) mod names;
pub(crate) mod parsing;
pub(crate) mod problem;
pub(crate) mod script_text;
pub mod stdlib;
pub(crate) mod syntax;
pub(crate) mod usage;
pub(crate) mod weight;
