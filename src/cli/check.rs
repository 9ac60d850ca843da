//! `outlier check`: what would fail in scripts, without running them. Exit code 1 when anything would.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{bars, fail};
use crate::host::check::Checker;
use crate::host::{self, Context};
use crate::terminal;

#[derive(Args)]
pub struct Check {
    #[arg(required = true)]
    scripts: Vec<PathBuf>,
}

pub fn check(asked: &Check) -> ExitCode {
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
    let scripts = match asked.scripts.len() {
        1 => "1 script".to_string(),
        count => format!("{count} scripts"),
    };
    match problems {
        0 => terminal::line(format!("{scripts}: nothing wrong was found")),
        1 => terminal::line(format!("{scripts}: 1 problem")),
        count => terminal::line(format!("{scripts}: {count} problems")),
    }
    ExitCode::from(if problems == 0 { 0 } else { 1 })
}
