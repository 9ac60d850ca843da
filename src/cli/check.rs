//! `outlier check`: what would fail in scripts, without running them. Exit code 1 when anything would.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::allow::path;
use super::bars;
use super::exit::fail;
use crate::error::Result;
use crate::exit::Exit;
use crate::host::check::Checker;
use crate::host::{self, Context, search};
use crate::terminal;
use crate::words::counted;

#[derive(Args)]
pub(super) struct Check {
    /// Scripts, or folders that are searched for *.rhai.
    #[arg(required = true, value_parser = path())]
    scripts: Vec<PathBuf>,
}

pub(super) fn check(asked: &Check) -> Result<Exit> {
    let context = Arc::new(Context::new(PathBuf::new(), PathBuf::new(), Vec::new(), bars::watch(true)));
    let checker = Checker::new(host::engine(&context), PathBuf::new());
    let mut problems = 0;
    let mut found = Vec::new();
    for path in &asked.scripts {
        match path.is_dir() {
            false => found.push(path.clone()),
            true => found.append(&mut search::files(path, ".rhai", "the names of scripts end so")?),
        }
    }
    for script in &found {
        match checker.check(script) {
            Ok(wrong) => {
                problems += wrong.len();
                wrong.iter().for_each(|diagnostic| terminal::note(format!("{diagnostic}\n")));
            }
            Err(diagnostic) => return Ok(fail(&diagnostic)),
        }
    }
    let scripts = counted(found.len(), "script");
    match problems {
        0 => terminal::line(format!("{scripts}: nothing wrong was found")),
        count => terminal::line(format!("{scripts}: {}", counted(count, "problem"))),
    }
    Ok(if problems == 0 { Exit::Done } else { Exit::Wrong })
}
