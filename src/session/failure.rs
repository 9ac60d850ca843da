//! Errors of machines, in words.

use crate::error::Error;

/// The error for an impossible answer, for which a retry would not help.
pub(super) fn untrue(message: impl Into<String>) -> Error {
    Error::corrupt(message)
        .hint("the machine does not run this program as it was sent there: end it and take another one")
}
