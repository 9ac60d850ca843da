//! What the user lets scripts read and write beside the project.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::home;
use crate::host::Allowed;

#[derive(Args)]
pub struct Allow {
    /// Lets texts and ids come from this folder or file, too; may be given several times.
    #[arg(long, value_name = "DIR", value_parser = path().try_map(there))]
    allow_read: Vec<PathBuf>,
    /// Lets results, logs, checkpoints and activations be written below this folder, too; may be given several times.
    #[arg(long, value_name = "DIR", value_parser = path())]
    allow_write: Vec<PathBuf>,
}

impl Allow {
    pub fn places(&self) -> Allowed {
        Allowed { reads: self.allow_read.clone(), writes: self.allow_write.clone() }
    }
}

/// Refuses a path that is not there: whoever names it expects that it is read.
fn there(path: PathBuf) -> Result<PathBuf, String> {
    if path.exists() { Ok(path) } else { Err("there is no such file or folder".to_string()) }
}

/// Reads a path of the command line; a shell leaves the `~` of `--flag=~/x` to us.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(home::expanded)
}
