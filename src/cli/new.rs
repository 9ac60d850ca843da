//! `outlier new`: a commented script to start from, which runs as it stands.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::disk;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::host::stdlib;
use crate::terminal;

/// What a new experiment looks like.
const TEMPLATE: &str = include_str!("new.rhai");

#[derive(Args)]
pub(super) struct New {
    /// Name of the experiment: the script is scripts/NAME.rhai, its results are in results/NAME/.
    name: String,
}

pub(super) fn new(asked: &New) -> Result<Exit> {
    let name = asked.name.trim_end_matches(".rhai");
    let bad = name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bad {
        return Err(Error::bad_argument(format!("\"{}\" is not a name for an experiment", asked.name))
            .hint("use letters, digits, '-' and '_', such as my_thresholds"));
    }
    // An import looks beside the importing script first: it would take this one for the module.
    if stdlib::known(Path::new("")).contains(name) {
        return Err(Error::bad_argument(format!(
            "\"{name}\" is the name of a module, and scripts that import it would take this one"
        ))
        .hint(format!("choose another name, such as my_{name}")));
    }
    let path = PathBuf::from("scripts").join(format!("{name}.rhai"));
    if path.exists() {
        return Err(Error::bad_argument(format!("{} is there already", path.display())).hint("choose another name"));
    }
    disk::write(&path, TEMPLATE.replace("NAME", name).as_bytes())?;
    terminal::line(path.display());
    terminal::line(format!("run it:    outlier run {}", path.display()));
    terminal::line(format!("plan it:   outlier plan {}", path.display()));
    terminal::line(format!("check it:  outlier check {}", path.display()));
    Ok(Exit::Done)
}
