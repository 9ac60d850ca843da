//! The script host: a Rhai engine whose primitives turn option maps into plain requests, and
//! records into readable values.
//!
//! There is one file per area of script-visible functions. Scripts access the outside world only
//! through these primitives.
//!
//! Imports have no circle. At the bottom are files that depend neither on a run nor on a primitive:
//! `bounds`, `problem`, `json`, `stdlib`, `syntax`, and the descriptions of the primitives in
//! `reference`. Above them is `context`, one run of a script, with its permissions (`places`,
//! `reads`, `modules`); then `options` and the `values` of scripts; then the areas, each with a
//! `register`; then `interpreter`, which registers all of them; and at the top `repl` and
//! `testing`, which start one.

mod assertions;
mod bounds;
pub mod check;
mod claims;
mod closures;
mod context;
mod criteria;
pub mod deep;
mod diagnostic;
mod ending;
mod extract;
mod fields;
mod figures;
mod files;
mod findings;
mod flags;
mod flow;
mod gpu_handle;
pub mod grid;
mod growth;
mod habits;
mod handle;
mod hints;
mod imports;
mod index;
mod interpreter;
mod json;
mod layout;
mod logs;
mod machines;
mod modules;
mod names;
mod options;
mod outgoing;
mod passes;
mod perplexity;
mod pieces;
mod places;
pub mod plan;
mod problem;
mod reads;
mod record_fields;
pub mod reference;
pub mod repl;
mod requests;
mod script_text;
pub mod scripts;
mod show;
mod stage;
mod statistics;
pub mod stdlib;
mod stored;
mod sweeps;
mod syntax;
pub mod testing;
mod thread_log;
mod tokens;
mod unsaved;
mod usage;
mod values;
mod weight;

pub use bounds::{Allowed, Bounds, MAX_OPERATIONS};
pub use context::{Context, Watch};
pub use diagnostic::Diagnostic;
pub use flags::OF_RUN;
pub use interpreter::{engine, registered, run};
pub use options::{MAX_TIME, parse_bytes};
