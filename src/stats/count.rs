//! Lengths of lists in a record.

use crate::error::{Error, Result};

/// # Errors
/// `corrupt` if there are more or fewer than expected.
pub(super) fn check_count(what: &str, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::corrupt(format!("{found} {what}, expected {expected}"))),
    }
}
