//! Tools for scripts: analysis without running, plans, tests, and the interactive session.

pub mod check;
mod check_fields;
pub(crate) mod passes;
pub mod plan;
pub mod repl;
pub mod search;
pub mod testing;
