//! The boundary at which errors of the tensor library become errors of the program.

use crate::error::{Error, Result};

/// Errors of the tensor library say too little by themselves, and no input of a user leads to one: they are faults of the
/// program.
pub fn ours<T>(outcome: candle_core::Result<T>) -> Result<T> {
    outcome.map_err(|error| Error::internal(format!("a tensor operation failed: {error}")))
}
