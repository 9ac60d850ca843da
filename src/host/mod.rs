//! The script host: a Rhai engine whose primitives turn option maps into plain requests, and
//! records into readable values.
//!
//! It has rooms, in this order; each imports from earlier ones only:
//!
//! - `language` is the language without primitives.
//! - `run` is one run of a script, with its permissions.
//! - `values` are option maps, their declarations, and what scripts hold.
//! - `primitives` has one file per area of script-visible functions. Scripts access the outside
//!   world only through these.
//! - `reference` lists all primitives and makes their documentation.
//! - `diagnostics` are errors as the user sees them, and `scripts` finds script files.
//! - `interpreter` registers all primitives and runs a script.
//! - `tools` start an interpreter, or analyse scripts without one.

mod diagnostics;
mod interpreter;
mod language;
mod primitives;
pub mod reference;
mod run;
pub mod scripts;
mod tools;
mod values;

pub use diagnostics::diagnostic::Diagnostic;
pub use interpreter::{engine, registered, run};
pub use language::bounds::{Allowed, Bounds, MAX_OPERATIONS};
pub use language::{deep, stdlib};
pub use primitives::script::flags::OF_RUN;
pub use run::context::{Context, Watch};
pub use tools::{check, plan, repl, search, testing};
pub use values::grid;
pub use values::options::{MAX_TIME, parse_bytes};
