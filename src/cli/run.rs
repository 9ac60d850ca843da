//! `outlier run` and `outlier plan`: a script from its first line to the last machine given back.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::allow::{Allow, path};
use super::bars;
use super::exit::{done, fail, panicked, tell};
use crate::error::Kind;
use crate::exit::Exit;
use crate::host::plan::{self, Plan};
use crate::host::{self, Bounds, Context, MAX_OPERATIONS, MAX_TIME, parse_bytes};
use crate::progress::interrupt_requested;
use crate::remote::trust::{self, Named};
use crate::terminal;

#[derive(Args)]
pub(super) struct Run {
    /// Says what would be done, as `outlier plan`.
    #[arg(long)]
    dry_run: bool,
    /// Lets run_command run commands on this machine.
    #[arg(long)]
    allow_commands: bool,
    #[command(flatten)]
    allow: Allow,
    /// A host key to trust, of one host or of any: what a script names is not trusted for that.
    /// Flags of the script count too.
    #[arg(long, value_name = "[HOST=]SHA256:…", value_parser = host_key)]
    host_key: Vec<Named>,
    /// Steps of the script language that the script may take.
    #[arg(long, value_name = "N", default_value_t = MAX_OPERATIONS, value_parser = clap::value_parser!(u64).range(1..))]
    max_steps: u64,
    /// Ends the script after so many minutes, looked at between two of its steps.
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    max_minutes: Option<Duration>,
    /// Memory that the values of the script may take together; models and records are not counted.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    max_memory: u64,
    #[arg(value_parser = path())]
    script: PathBuf,
    /// Flags of the script; `outlier run SCRIPT --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

fn host_key(word: &str) -> Result<Named, String> {
    trust::parse(word).ok_or_else(|| "write SHA256:… as `ssh-keygen -lf` prints it, or HOST=SHA256:…".to_string())
}

fn minutes(text: &str) -> Result<Duration, String> {
    let most = MAX_TIME.as_secs() / 60;
    let minutes = text.parse::<f64>().ok().filter(|minutes| *minutes > 0.0 && *minutes <= most as f64);
    minutes
        .map(|minutes| Duration::from_secs_f64(60.0 * minutes))
        .ok_or_else(|| format!("expected a number above 0, at most {most}"))
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text)
        .ok_or_else(|| "expected a number of bytes such as 512MiB or 4GB, above 0, at most 1024TiB".to_string())
}

/// Takes out a flag that is ours wherever it stands.
fn take(flags: &mut Vec<String>, flag: &str) -> bool {
    let before = flags.len();
    flags.retain(|word| word != flag);
    flags.len() < before
}

impl Run {
    /// Whether `--quiet` stands behind the script; its flags do not hold it any more.
    pub(super) fn takes_quiet(&mut self) -> bool {
        take(&mut self.flags, "--quiet")
    }
}

fn context(asked: Run, quiet: bool) -> Context {
    let words = asked.flags.iter().filter_map(|word| trust::parse(word));
    trust::trust(asked.host_key.into_iter().chain(words).collect());
    let allowed = asked.allow.places();
    let Run { max_steps: operations, max_minutes: time, max_memory: memory, allow_commands: commands_here, .. } = asked;
    let bounds = Bounds { operations, time, memory, commands_here, allowed };
    let mut context = Context::new(PathBuf::new(), asked.script, asked.flags, bars::watch(quiet));
    context.bounds = bounds;
    context
}

pub(super) fn run(asked: Run, quiet: bool) -> ExitCode {
    // A script that has a dry run of its own knows better what to show.
    let its_own = |asked: &Run| plan::has_dry_run(&asked.script, Path::new(""));
    let wished = asked.flags.iter().any(|flag| flag == "--dry-run");
    if asked.dry_run || (wished && !its_own(&asked)) {
        return plan(asked, quiet);
    }
    let context = Arc::new(context(asked, quiet));
    let outcome = carried_out(&context);
    // Whatever happened: no machine stays behind.
    let ending = context.fleet.finish();
    for line in &ending.lines {
        terminal::note(line);
    }
    let Ok(outcome) = outcome else {
        let fault = panicked();
        return if ending.leaked { Exit::Leaked } else { fault }.into();
    };
    match plan::compare(&context) {
        Ok(Some(text)) => context.watch.line(text.trim_end()),
        Ok(None) => (),
        Err(error) => drop(tell(&error)),
    }
    if ending.leaked {
        if let Err(diagnostic) = outcome {
            terminal::note(diagnostic);
        }
        return Exit::Leaked.into();
    }
    match outcome {
        Ok(()) if interrupt_requested() => Exit::Interrupted.into(),
        Ok(()) if context.code() != 0 => ExitCode::from(context.code()),
        Ok(()) if context.failed() => Exit::Failed.into(),
        Ok(()) => Exit::Done.into(),
        Err(diagnostic) => fail(&diagnostic).into(),
    }
}

fn carried_out(context: &Arc<Context>) -> std::thread::Result<Result<(), Box<host::Diagnostic>>> {
    let engine = host::engine(context);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host::run(&engine, context)))
}

pub(super) fn plan(mut asked: Run, quiet: bool) -> ExitCode {
    take(&mut asked.flags, "--dry-run");
    let context = match context(asked, quiet).planned() {
        Ok(context) => Arc::new(context),
        Err(error) => return done(Err(error)),
    };
    let outcome = carried_out(&context);
    let Ok(outcome) = outcome else { return panicked().into() };
    let Some(mut plan) = Plan::of(&context) else { return panicked().into() };
    if let Err(diagnostic) = &outcome {
        // It stands below, with its place.
        plan.wrong.retain(|wrong| !diagnostic.message().contains(wrong.as_str()));
    }
    let stored = outcome.is_ok().then(|| plan.store(&context));
    terminal::out(plan.text(outcome.is_ok()));
    match stored {
        Some(Ok(file)) => {
            context.watch.line(&format!("{}: the next run with these words is compared with it", file.display()))
        }
        // Where nothing can be written, the plan is what was asked for all the same.
        Some(Err(error)) if matches!(error.kind, Kind::Io | Kind::NotFound) => {
            terminal::note(format!("the plan is not kept, and the next run not compared with it: {error}"));
        }
        Some(Err(error)) => return done(Err(error)),
        None => (),
    }
    match outcome {
        Ok(()) if context.code() != 0 => ExitCode::from(context.code()),
        Ok(()) if context.failed() => Exit::Failed.into(),
        Ok(()) => Exit::Done.into(),
        Err(diagnostic) => fail(&diagnostic).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_stand_before_the_script_are_known_behind_it() {
        let command = Run::augment_args(clap::Command::new("run"));
        let long = command.get_arguments().filter_map(|argument| argument.get_long());
        // What is taken wherever it stands.
        let mut flags: Vec<String> = long.filter(|name| *name != "dry-run").map(|name| format!("--{name}")).collect();
        let mut known = host::OF_RUN.map(str::to_string);
        flags.sort();
        known.sort();
        assert_eq!(flags, known);
    }
}
