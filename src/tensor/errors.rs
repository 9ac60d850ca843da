//! The boundary at which errors of the tensor library become errors of the program.

use crate::error::{Error, Result};

/// Converts an error of the tensor library into an internal error: no input of a user leads to one,
/// so it is a fault of the program.
pub(super) fn convert_error<T>(outcome: candle_core::Result<T>) -> Result<T> {
    outcome.map_err(|error| Error::internal(format!("a tensor operation failed: {error}")))
}
