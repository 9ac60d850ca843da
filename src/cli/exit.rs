//! How a command ends: the exit codes, and what is said of an error. The codes are documented in docs/exit_codes.md.

use std::process::ExitCode;

use crate::error::{Error, Result};
use crate::host::Diagnostic;
use crate::terminal;

/// The exit code when an argument is wrong, such as a name of nothing.
pub const WRONG: u8 = 1;
/// The exit code of bad usage.
pub const USAGE: u8 = 2;
/// The exit code when a script ended well but reported a failed model, and when a command failed or what was to be shown could
/// not be written.
pub const FAILED: u8 = 3;
/// The exit code when a machine is, or may be, still alive that should not be.
pub const LEAKED: u8 = 4;
/// The exit code when a script ended well because it was told to stop; 128 + SIGINT, as shells report it.
pub const INTERRUPTED: u8 = 130;

/// A command that runs no script ends as a script does: what went wrong decides.
pub fn done(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| fail(&Diagnostic::from_error(error)))
}

/// Says what went wrong in a script; the exit code is that of its kind.
pub fn fail(diagnostic: &Diagnostic) -> ExitCode {
    terminal::note(diagnostic);
    ExitCode::from(diagnostic.exit as u8)
}

/// An error on stderr, as everywhere.
pub fn tell(error: &Error) {
    terminal::note(format!("error: {error}"));
    if let Some(hint) = &error.hint {
        terminal::note(format!("  hint: {hint}"));
    }
}

/// The exit code when the program itself is at fault, as Rust has it for a panic.
const FAULT: u8 = 101;

/// What Rust says about a panic stands above this.
pub fn panicked() -> ExitCode {
    terminal::note("error: a primitive panicked; this is a fault of the program");
    ExitCode::from(FAULT)
}
