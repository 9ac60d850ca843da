//! `outlier test`: tests written in scripts, each in a world of its own. Exit code 1 when one fails.

use std::path::PathBuf;

use clap::Args;

use super::allow::{Allow, path};
use super::bars;
use super::exit::fail;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::host::{Diagnostic, search, testing};
use crate::progress::interrupt_requested;
use crate::terminal;

#[derive(Args)]
pub(super) struct Test {
    /// A folder that is searched for *_test.rhai, or one such file.
    #[arg(default_value = ".", value_parser = path())]
    path: PathBuf,
    /// Runs only tests whose name holds this.
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    allow: Allow,
}

pub(super) fn test(asked: &Test) -> Result<Exit> {
    if !asked.path.exists() {
        let message = format!("reading {}: No such file or directory", asked.path.display());
        return Ok(fail(&Diagnostic::usage(message, "name a folder with tests, or a file *_test.rhai")));
    }
    let files = search::files(&asked.path, "_test.rhai", "tests are functions test_…() in such files")?;
    let scratch = tempfile::tempdir().map_err(|e| Error::io("making a temporary folder", &e))?;
    let (watch, allowed) = (bars::watch(true), asked.allow.places());
    let (mut passed, mut failed) = (0, 0);
    let chosen = |name: &str| asked.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for file in files.into_iter().take_while(|_| !interrupt_requested()) {
        terminal::line(file.display());
        let outcomes = match testing::run_file(&file, scratch.path(), &watch, &allowed, &chosen) {
            Ok(outcomes) => outcomes,
            Err(diagnostic) => {
                fail(&diagnostic);
                failed += 1;
                continue;
            }
        };
        for outcome in outcomes {
            let verdict = if outcome.failure.is_some() { "FAILED" } else { "ok" };
            terminal::line(format!("  {:<60} {verdict} ({:.2} s)", outcome.name, outcome.seconds));
            match outcome.failure {
                Some(text) => {
                    failed += 1;
                    terminal::sentence(text.lines().map(|line| format!("    {line}\n")).collect::<String>().trim_end());
                }
                None => passed += 1,
            }
        }
    }
    if interrupt_requested() {
        return Err(Error::interrupted());
    }
    terminal::line(format!("{passed} passed, {failed} failed"));
    Ok(if failed == 0 { Exit::Done } else { Exit::Wrong })
}
