//! Result folders: what is written, atomically, and read back.

mod analysis;
pub mod atomic;
mod features_csv;
mod folder;
mod full_activations;
mod packed;
pub mod sealed;
mod stats_file;
mod table;
mod tables;

pub use analysis::Analysis;
pub use folder::{Stored, check_name, list, load, save};
pub use full_activations::{FILE as FULL_ACTIVATIONS, FullActivations};
pub use stats_file::{encode as encode_stats, read as read_stats};
pub use table::Table;
pub use tables::tables;
