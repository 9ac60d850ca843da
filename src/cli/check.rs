//! `outlier check`: what would fail in scripts, without running them. Exit code 1 when anything would.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::allow::path;
use super::bars;
use super::exit::fail;
use crate::exit::Exit;
use crate::host::check::Checker;
use crate::host::{self, Context};
use crate::terminal;
use crate::words::counted;

#[derive(Args)]
pub(super) struct Check {
    #[arg(required = true, value_parser = path())]
    scripts: Vec<PathBuf>,
}

pub(super) fn check(asked: &Check) -> Exit {
    let context = Arc::new(Context::new(PathBuf::new(), PathBuf::new(), Vec::new(), bars::watch(true)));
    let checker = Checker::new(host::engine(&context), PathBuf::new());
    let mut problems = 0;
    for script in &asked.scripts {
        match checker.check(script) {
            Ok(found) => {
                problems += found.len();
                found.iter().for_each(|diagnostic| terminal::note(format!("{diagnostic}\n")));
            }
            Err(diagnostic) => return fail(&diagnostic),
        }
    }
    let scripts = counted(asked.scripts.len(), "script");
    match problems {
        0 => terminal::line(format!("{scripts}: nothing wrong was found")),
        count => terminal::line(format!("{scripts}: {}", counted(count, "problem"))),
    }
    if problems == 0 { Exit::Done } else { Exit::Wrong }
}
