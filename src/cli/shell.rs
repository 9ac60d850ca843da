//! `outlier completions` and `outlier man`: what shells and `man` are told about the command line, made from it.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::allow::path;
use crate::disk;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::suggest;
use crate::terminal;

#[derive(Args)]
pub(super) struct Completions {
    /// The shell that reads them.
    shell: Shell,
}

#[derive(Args)]
pub(super) struct Manual {
    /// The command whose page is printed; the page of the whole program where none is given.
    command: Option<String>,
    /// Writes all pages to this folder: outlier.1, outlier-run.1 and so on.
    #[arg(long, value_name = "DIR", value_parser = path(), conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// The command line without what users do not call, such as `worker`: completions would offer it.
fn public(command: &Command) -> Command {
    let mut public = Command::new("outlier")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned())
        .disable_help_subcommand(true);
    if let (Some(about), Some(after)) = (command.get_about(), command.get_after_help()) {
        public = public.about(about.clone()).after_help(after.clone());
    }
    public.build();
    public
}

pub(super) fn completions(asked: &Completions, command: Command) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(asked.shell, &mut public(&command), "outlier", &mut text);
    terminal::out(String::from_utf8_lossy(&text));
    Exit::Done
}

pub(super) fn manual(asked: &Manual, command: Command) -> Result<Exit> {
    let program = public(&command);
    if let Some(folder) = &asked.dir {
        for page in pages(&program) {
            let file = folder.join(Man::new(page.clone()).get_filename());
            disk::write(&file, rendered(&page).as_bytes())?;
            terminal::line(file.display());
        }
        return Ok(Exit::Done);
    }
    let chosen = match &asked.command {
        None => &program,
        Some(name) => program.find_subcommand(name).ok_or_else(|| {
            let known: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
            Error::bad_argument(format!("there is no command \"{name}\"")).hint(suggest::hint(name, known))
        })?,
    };
    terminal::out(rendered(chosen));
    Ok(Exit::Done)
}

/// A page for a command and for each of those below it.
fn pages(command: &Command) -> Vec<Command> {
    let below = command.get_subcommands().flat_map(pages);
    std::iter::once(command.clone()).chain(below).collect()
}

/// What stands below the help of the program is about its exit codes: it has a section of its own in manual pages.
fn rendered(command: &Command) -> String {
    let page = Man::new(command.clone().after_help(None::<&str>));
    let mut text = Vec::new();
    page.source(concat!("outlier ", env!("CARGO_PKG_VERSION"))).render(&mut text).expect("memory takes all of it");
    let mut text = String::from_utf8(text).expect("help is UTF-8");
    if let Some(codes) = command.get_after_help() {
        text += &format!(".SH \"EXIT STATUS\"\n{codes}\n");
    }
    text
}
