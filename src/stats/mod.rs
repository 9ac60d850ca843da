//! Statistics of activation records: which features are outliers, and how sure that is.
//!
//! Pure: records go in, records come out. No tensors, no files, no clock; every random step takes a seed. Definitions
//! stand beside the fields in `record/`, their sources at the functions here. Reading order: `criterion` (what is
//! asked), `reach` (what the record says per feature), `detect`, then `draws`, `outcome`, `interval` and `bootstrap`.

mod bootstrap;
mod criterion;
mod detect;
mod draws;
mod integrity;
mod interval;
mod layer_stats;
mod normal;
mod outcome;
mod quantile;
mod reach;
mod signed_ladder;

#[cfg(test)]
mod brute_force;
#[cfg(test)]
pub(crate) mod dense;

pub use bootstrap::bootstrap;
pub use detect::detect;
pub use integrity::check_record;
pub use interval::{Replicates, interval};
pub use normal::{normal_cdf, normal_quantile};
pub use quantile::linear_quantile;
