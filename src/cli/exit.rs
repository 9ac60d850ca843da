//! Ends a command: prints its error, and gives the exit code of it. `crate::exit` has the codes.

use std::process::ExitCode;

use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::host::Diagnostic;
use crate::terminal;

/// Ends a command that runs no script. Its error determines the exit code, as for a script.
pub(super) fn done(outcome: Result<Exit>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => fail(&Diagnostic::from_error(error)).into(),
    }
}

/// Prints an error of a script. Returns the end of its kind.
pub(super) fn fail(diagnostic: &Diagnostic) -> Exit {
    terminal::note(diagnostic);
    diagnostic.exit
}

/// Prints an error on stderr, where the command goes on. Returns the end of its kind.
pub(super) fn tell(error: &Error) -> Exit {
    terminal::note(format!("error: {error}"));
    if let Some(hint) = &error.hint {
        terminal::note(format!("  hint: {hint}"));
    }
    Exit::of(error.kind)
}

/// Explains a panic, after Rust's own message.
pub(super) fn panicked() -> Exit {
    terminal::note("error: a primitive panicked; this is a fault of the program");
    Exit::Fault
}
