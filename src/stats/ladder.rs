//! The ladder: the thresholds at which a pass counts hits.

use crate::error::{Error, Result};
use crate::record::DEFAULT_LADDER;

/// The largest number of rungs. A pass stores the highest rung that a value has reached in a byte,
/// in which 0 means below the lowest rung.
const MAX_RUNGS: usize = 254;

/// The ascending union of the default rungs and `thresholds`.
///
/// # Errors
/// `bad_argument` for a threshold that is not positive and finite, and for too many of them.
pub fn ladder(thresholds: &[f32]) -> Result<Vec<f32>> {
    if let Some(bad) = thresholds.iter().find(|t| !t.is_finite() || **t <= 0.0) {
        return Err(Error::bad_argument(format!("thresholds: {bad} is not a positive number"))
            .hint("thresholds are magnitudes: both signs count; LLM.int8() uses 6.0"));
    }
    let mut ladder: Vec<f32> = DEFAULT_LADDER.iter().chain(thresholds).copied().collect();
    ladder.sort_by(f32::total_cmp);
    ladder.dedup();
    if ladder.len() > MAX_RUNGS {
        let problem = format!("{} thresholds are more than the {MAX_RUNGS} a record can hold", ladder.len());
        return Err(Error::bad_argument(problem));
    }
    Ok(ladder)
}
