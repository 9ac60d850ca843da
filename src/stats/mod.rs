//! Statistics of activation records: outlier features, and their uncertainty.
//!
//! These functions are pure: they map records to records, without tensors, files or a clock, and
//! every random step takes a seed. Definitions are documented at the fields in `record/`, and their
//! sources at the functions here.
//!
//! Reading order: `criterion`, `hit_table` (the hits of each feature), `detect`, then `draws`,
//! `outcome`, `interval` and `bootstrap`. Significance tests are in `permutation` and `correction`.

mod bootstrap;
mod bracket;
mod cells;
mod correction;
mod count;
mod criterion;
mod detect;
mod draws;
mod experts;
mod group;
mod hit_table;
mod hits;
mod index;
mod integrity;
mod interval;
mod ladder;
mod lanes;
mod layer_stats;
mod measured;
mod measured_tokens;
mod moments;
mod normal;
mod outcome;
mod own;
mod parts;
mod permutation;
mod perplexity;
mod profile;
mod quantile;
mod questions;
mod sequences;
mod signed_ladder;
mod sweep;

#[cfg(test)]
mod brute_force;
#[cfg(test)]
pub(crate) mod dense;

pub use bootstrap::bootstrap;
pub use cells::cells;
pub use correction::adjust;
pub use criterion::check_exact;
pub use detect::detect;
pub use experts::{TokensNeeded, Unseen, tokens_needed_per_expert};
pub use hits::{HitPlaces, KindShare, Mark, STRENGTHS, TokenKind, kinds, marks, places, site_hits, strength};
pub use index::ThresholdIndex;
pub use integrity::{check_metadata, check_record, check_whole};
pub use interval::{Replicates, interval};
pub use ladder::ladder;
pub use lanes::compare_lanes;
pub use measured::check_asked;
pub use moments::{SiteMoments, SuperExpert, SuperWeightFound, site_moments, super_experts, super_weights};
pub use normal::{normal_cdf, normal_quantile};
pub use own::{Candidate, Judge, bootstrap_where, detect_listed, detect_where, sequences_needed_where, sweep_where};
pub use parts::{check_paired, halves, join, select};
pub use permutation::{correlation_test, group_test, paired_test};
pub use perplexity::{check_perplexity, mean_interval, perplexity};
pub use profile::{
    heat_map, layer_agreement, layer_profile, magnitude_histogram, per_sequence, per_sequence_of, values_per_sequence,
};
pub use quantile::linear_quantile;
pub use questions::{Brief, Found, Questions};
pub use sequences::sequences_needed;
pub use sweep::{MAX_CRITERIA, sweep};
