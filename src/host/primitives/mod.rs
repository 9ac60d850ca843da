//! The primitives, which are the functions through which scripts access the outside world. There is
//! one folder per group of areas and one file per area, each with a `register`.

pub(crate) mod machines;
pub(crate) mod models;
pub(crate) mod results;
pub(crate) mod script;
pub(crate) mod statistics;
