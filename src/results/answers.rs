//! What a record answers to the criterion of a stored analysis.

use crate::error::Result;
use crate::record::{Activations, Criterion, Detection};
use crate::stats;

/// What the record gives for a criterion. A function of a script is not stored: of its findings the
/// record gives the description of each feature, and the list says which pass.
pub(super) fn of_record(acts: &Activations, found: &Detection, criterion: &Criterion) -> Result<Detection> {
    match found.criterion.own {
        None => stats::detect(acts, criterion),
        Some(_) => {
            let listed = found.features.iter().map(|feature| (feature.sequence, feature.feature_dim)).collect();
            stats::detect_listed(acts, criterion, &listed)
        }
    }
}
