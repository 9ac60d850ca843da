//! The ladder: the thresholds at which a pass counts.

use crate::error::{Error, Result};
use crate::record::DEFAULT_LADDER;

/// Most rungs a ladder can have: a pass keeps the highest rung that a value has reached in a byte, 0 meaning below the lowest.
const MAX_RUNGS: usize = 254;

/// Ascending union of the default rungs and those asked for.
///
/// # Errors
/// `bad_argument` for a threshold that is no positive number, and for too many.
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
