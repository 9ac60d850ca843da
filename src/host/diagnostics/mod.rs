//! Errors as the user sees them, with hints.

pub(crate) mod caught;
pub(crate) mod diagnostic;
pub(crate) mod fields;
pub(crate) mod habits;
pub(crate) mod hints;
pub(crate) mod pieces;
