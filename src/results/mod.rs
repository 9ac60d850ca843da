//! Result folders: written, replaced and read as a whole.

mod agreement;
mod analysis;
mod answers;
mod features_csv;
mod folder;
mod full_activations;
mod hits_file;
mod ignore;
mod lane_tables;
mod measure_tables;
mod names;
mod packed;
mod replace;
mod rows;
mod scales;
pub mod sealed;
mod stats_file;
mod table;
mod tables;

pub use agreement::check_criteria;
pub use analysis::Analysis;
pub use folder::{Saved, Stored, check_name, exists, list, load, missing, save};
pub use full_activations::{Contents, FILE as FULL_ACTIVATIONS, FullActivations, is_full_activations};
pub use ignore::{IgnoreRule, ignore_recipe, ignored};
pub use scales::{ScaleKind, act_scales, imatrix};
pub use stats_file::{encode as encode_stats, from_bytes as decode_stats, read as read_stats};
pub use table::Table;
pub use tables::tables;
