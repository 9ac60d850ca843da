//! Ends a command: the exit codes, and the printing of errors. The codes are documented in
//! docs/exit_codes.md.

use std::process::ExitCode;

use crate::error::{Error, Result};
use crate::host::Diagnostic;
use crate::terminal;

/// The exit code for a wrong argument, such as an unknown name.
pub(super) const WRONG: u8 = 1;
/// The exit code for bad usage.
pub(super) const USAGE: u8 = 2;
/// The exit code if a script ended well but reported a failed model, if a command failed, or if
/// output could not be written.
pub(super) const FAILED: u8 = 3;
/// The exit code if a machine is, or may be, still running that should have ended.
pub(super) const LEAKED: u8 = 4;
/// The exit code if a script ended well after an interruption: 128 + SIGINT, as shells report it.
pub(super) const INTERRUPTED: u8 = 130;

/// Ends a command that runs no script. Its error determines the exit code, as for a script.
pub(super) fn done(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| fail(&Diagnostic::from_error(error)))
}

/// Prints an error of a script. Returns the exit code of its kind.
pub(super) fn fail(diagnostic: &Diagnostic) -> ExitCode {
    terminal::note(diagnostic);
    ExitCode::from(diagnostic.exit as u8)
}

/// Prints an error on stderr.
pub(super) fn tell(error: &Error) {
    terminal::note(format!("error: {error}"));
    if let Some(hint) = &error.hint {
        terminal::note(format!("  hint: {hint}"));
    }
}

/// The exit code for a fault of the program, the same as Rust's for a panic.
const FAULT: u8 = 101;

/// Explains a panic, after Rust's own message.
pub(super) fn panicked() -> ExitCode {
    terminal::note("error: a primitive panicked; this is a fault of the program");
    ExitCode::from(FAULT)
}
