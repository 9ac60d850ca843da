//! Parses the command line and runs the command. All other code is in the library.

use std::process::ExitCode;

use outlier::memory::Allocator;

// SAFETY: this is the one place that makes it, and it is the global allocator.
#[global_allocator]
static ALLOCATOR: Allocator = unsafe { Allocator::new() };

fn main() -> ExitCode {
    outlier::cli::main()
}
