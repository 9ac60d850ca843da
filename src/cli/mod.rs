//! The command line: what can be started.

mod allow;
mod bars;
mod check;
mod doc;
mod doctor;
mod dotenv;
mod exit;
mod gpus;
mod gpus_shell;
mod interrupt;
mod models;
mod new;
mod offers;
mod repl;
mod rethreshold;
mod run;
mod shell;
mod show;
mod table;
mod test;
mod worker;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit::Exit;
use crate::host::{deep, scripts};
use crate::terminal;
use exit::{done, panicked};

/// Measures outlier features in large language models, scripted in Rhai.
#[derive(Parser)]
#[command(name = "outlier", version, arg_required_else_help = true)]
#[command(after_help = Exit::in_short())]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// No progress and no notes on stderr, only errors.
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a script: outlier run scripts/quickstart.rhai [its flags]
    Run(run::Run),
    /// Says what a script would do: machines, dollars, minutes, bytes, memory, files. Nothing is done.
    Plan(run::Run),
    /// Reads scripts and finds what would fail, without running anything.
    Check(check::Check),
    /// Runs tests written in scripts: outlier test scripts/tests
    Test(test::Test),
    /// Tells what scripts can call: outlier doc [NAME]
    Doc(doc::Doc),
    /// Lists which models can be read, and how each architecture was verified: outlier models [NAME]
    Models(models::Models),
    /// Says what this machine offers: processor, memory, GPU driver and GPUs, and what of it is used.
    Doctor,
    /// Experiments line by line, here or on a machine that is at work.
    Repl(repl::Prompt),
    /// Writes a commented script to start from.
    New(new::New),
    /// Lists rented machines: outlier gpus [--all], outlier gpus terminate ID…, reap, ssh ID, logs ID
    Gpus(gpus::Gpus),
    /// Lists GPUs that could be rented now, with prices.
    Offers(offers::Offers),
    /// Asks another criterion of a stored record: outlier rethreshold results/NAME --magnitude 7
    Rethreshold(rethreshold::Rethreshold),
    /// Shows the text of a stored record with the tokens marked that have hits: outlier show results/NAME
    Show(show::Show),
    /// Prints completions for a shell: outlier completions bash
    Completions(shell::Completions),
    /// Prints the manual page of the program or of a command: outlier man run | man -l -
    Man(shell::Manual),
    /// Serves a client of another machine; started by that client.
    #[command(hide = true)]
    Worker {
        #[command(subcommand)]
        worker: worker::Worker,
    },
}

impl Command {
    /// Whether what `.env` holds may be of use. A worker is given what it needs by its client.
    fn wants_tokens(&self) -> bool {
        use Command::{Check, Completions, Doc, Man, Models, New, Worker};
        !matches!(self, Worker { .. } | Doc(_) | Models(_) | Check(_) | New(_) | Completions(_) | Man(_))
    }
}

pub fn main() -> ExitCode {
    crate::memory::return_freed_memory();
    let mut cli = match parsed(script_help_last(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            terminal::came_of(!error.use_stderr(), error.print());
            if let Some(hint) = meant(&error) {
                terminal::note(format!("\n  hint: {hint}"));
            }
            return shown(if error.use_stderr() { Exit::Usage } else { Exit::Done }.into());
        }
    };
    if let Command::Run(asked) | Command::Plan(asked) = &mut cli.command {
        cli.quiet |= asked.takes_quiet();
    }
    if !cli.quiet {
        crate::progress::show_notes(|text| terminal::note(format!("note: {text}")));
    }
    if cli.command.wants_tokens() {
        dotenv::read();
    }
    interrupt::install();
    // A worker runs no scripts, and may leave this process for another: it stays on the first thread.
    let ended = match cli.command {
        Command::Worker { .. } => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| carried_out(cli))),
        _ => deep::run(|| carried_out(cli)),
    };
    shown(ended.unwrap_or_else(|_| panicked().into()))
}

fn parsed(words: Vec<OsString>) -> Result<Cli, clap::Error> {
    // By itself clap colours dumb terminals wherever `CI` or `CLICOLOR` is set.
    let colour = if terminal::may_colour() { ColorChoice::Auto } else { ColorChoice::Never };
    Cli::from_arg_matches(&Cli::command().color(colour).try_get_matches_from(words)?)
}

/// What to do about a word that is no command: a script is started by `run`.
fn meant(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let path = Path::new(word);
    let is_script = path.extension().is_some_and(|end| end == "rhai");
    let script = if is_script && path.is_file() { Some(path.to_path_buf()) } else { scripts::near(path) };
    match script {
        Some(script) => Some(format!("a script is started by `outlier run {}`", script.display())),
        None if is_script => {
            Some("a script is started by `outlier run SCRIPT`; there is none of this name".to_string())
        }
        None => None,
    }
}

/// Whoever reads the output later must not take a part of it for the whole.
fn shown(code: ExitCode) -> ExitCode {
    if code == ExitCode::SUCCESS && terminal::broken() { Exit::Failed.into() } else { code }
}

fn carried_out(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Worker { worker } => done(worker::run(&worker).map(|()| Exit::Done)),
        Command::Gpus(asked) => done(gpus::gpus(&asked)),
        Command::Offers(asked) => done(offers::offers(&asked)),
        Command::Run(asked) => run::run(asked, cli.quiet),
        Command::Plan(asked) => run::plan(asked, cli.quiet),
        Command::Check(asked) => done(check::check(&asked)),
        Command::Test(asked) => done(test::test(&asked)),
        Command::Doc(asked) => done(doc::doc(&asked)),
        Command::Models(asked) => done(models::models(&asked)),
        Command::Doctor => {
            doctor::doctor();
            Exit::Done.into()
        }
        Command::Repl(asked) => done(repl::repl(&asked, cli.quiet)),
        Command::New(asked) => done(new::new(&asked)),
        Command::Rethreshold(asked) => done(rethreshold::run(&asked)),
        Command::Show(asked) => done(show::run(&asked)),
        Command::Completions(asked) => shell::completions(&asked, Cli::command()).into(),
        Command::Man(asked) => done(shell::manual(&asked, Cli::command())),
    }
}

/// `run SCRIPT --help` asks the script, not this program: everything after the script is the script's.
fn script_help_last(mut words: Vec<OsString>) -> Vec<OsString> {
    let run = words.iter().position(|word| word == "run" || word == "plan");
    let is_value = |i: usize| VALUED.iter().any(|flag| words[i - 1] == *flag);
    let is_flag = |i: usize| words[i].as_encoded_bytes().starts_with(b"-");
    let script = run.and_then(|run| (run + 1..words.len()).find(|&i| !is_flag(i) && !is_value(i)));
    if let Some(script) = script.filter(|script| script + 1 < words.len()) {
        words.insert(script + 1, "--".into());
    }
    words
}

/// Flags of `run` that a value stands behind.
const VALUED: [&str; 6] =
    ["--max-steps", "--max-minutes", "--max-memory", "--allow-read", "--allow-write", "--host-key"];
