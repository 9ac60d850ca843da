//! `outlier doc`: what scripts can call, from the reference inside the program.

use std::path::PathBuf;

use clap::Args;

use super::allow::path;
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::host::reference;
use crate::terminal;

#[derive(Args)]
pub(super) struct Doc {
    /// A primitive, a module, or module::function; everything in short where none is given.
    name: Option<String>,
    /// Prints docs/reference.md.
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
    /// Writes .d.rhai files for editors to this folder.
    #[arg(long, value_name = "DIR", value_parser = path(), conflicts_with_all = ["name", "markdown"])]
    definitions: Option<PathBuf>,
}

pub(super) fn doc(asked: &Doc) -> Result<Exit> {
    if let Some(folder) = &asked.definitions {
        for (name, text) in reference::definitions() {
            let path = folder.join(name);
            disk::write(&path, text.as_bytes())?;
            terminal::line(path.display());
        }
    } else if asked.markdown {
        terminal::out(reference::markdown());
    } else {
        let told = reference::for_reading(asked.name.as_deref());
        // An unknown function, as in a script.
        let told = told.map_err(|error| Error { kind: Kind::BadArgument, ..error })?;
        terminal::sentence(told.trim_end());
    }
    Ok(Exit::Done)
}
