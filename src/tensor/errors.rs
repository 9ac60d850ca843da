//! Errors on their way between the tensor library and the program.

use crate::error::{Error, Kind};

/// Errors of the tensor library say too little by themselves; they are faults of the program, not of the user.
pub fn tensor_error(error: candle_core::Error) -> Error {
    let problem =
        |error: &dyn std::fmt::Display| Error::new(Kind::Unsupported, format!("tensor operation failed: {error}"));
    match error {
        candle_core::Error::Cuda(error) => error.downcast::<Error>().map_or_else(|error| problem(&error), |own| *own),
        error => problem(&error),
    }
}

/// An error of the GPU on its way through the engine, which keeps its kind.
pub fn wrapped(error: Error) -> candle_core::Error {
    candle_core::Error::Cuda(Box::new(error))
}

/// Whether an operation found no room on its device: nothing has been changed then, and a smaller one may find it.
pub fn is_full(error: &candle_core::Error) -> bool {
    match error {
        candle_core::Error::Cuda(error) => error.downcast_ref::<Error>().is_some_and(|error| error.kind == Kind::Oom),
        _ => false,
    }
}
