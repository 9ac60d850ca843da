//! Parses the command line and starts what it names; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    outlier::cli::main()
}
