//! Result folders: what is written, atomically, and read back.

mod analysis;
pub mod atomic;
mod features_csv;
mod folder;
mod full_activations;
pub mod sealed;
mod stats_file;

pub use analysis::Analysis;
pub use folder::{Stored, check_name, load, save};
pub use full_activations::{FILE as FULL_ACTIVATIONS, FullActivations};
