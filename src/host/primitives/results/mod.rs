//! Primitives of what a run leaves: stored results, files and figures.

pub(crate) mod exports;
pub(crate) mod figures;
pub(crate) mod files;
pub(crate) mod reading;
pub(crate) mod stored;
