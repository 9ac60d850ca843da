//! What the user lets scripts read and write beside the project.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::home;
use crate::host::Allowed;
use crate::progress::note;

#[derive(Args)]
pub(super) struct Allow {
    /// Lets texts and ids come from this folder or file, too; may be given several times.
    #[arg(long, value_name = "DIR", value_parser = path())]
    allow_read: Vec<PathBuf>,
    /// Lets scripts write below this folder, and replace files there, hidden ones excepted; may be given several times.
    #[arg(long, value_name = "DIR", value_parser = path())]
    allow_write: Vec<PathBuf>,
}

impl Allow {
    /// What is not there to be read is told: nothing can be read from it.
    pub(super) fn places(&self) -> Allowed {
        for path in self.allow_read.iter().filter(|path| !path.exists()) {
            note(&format!("--allow-read {}: there is no such file or folder", path.display()));
        }
        Allowed { reads: self.allow_read.clone(), writes: self.allow_write.clone() }
    }
}

/// Reads a path of the command line; a shell leaves the `~` of `--flag=~/x` to us.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(home::expanded)
}
