//! `outlier run` and `outlier plan`: a script from its first line to the last machine given back.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{FAILED_MODEL, INTERRUPTED, LEAKED, PANICKED, bars, fail, gpus};
use crate::host::plan::{self, Plan};
use crate::host::{self, Bounds, Context, MAX_OPERATIONS};
use crate::progress::interrupt_requested;
use crate::remote::trust::{self, Named};

#[derive(Args)]
pub struct Run {
    /// Says what would be done, as `outlier plan`.
    #[arg(long)]
    dry_run: bool,
    /// Lets run_command run commands on this machine.
    #[arg(long)]
    allow_commands: bool,
    /// A host key to trust, of one host or of any: what a script names is not trusted for that. Flags of the script count too.
    #[arg(long, value_name = "[HOST=]SHA256:…", value_parser = host_key)]
    host_key: Vec<Named>,
    /// Steps of the script language that the script may take.
    #[arg(long, value_name = "N", default_value_t = MAX_OPERATIONS)]
    max_steps: u64,
    /// Ends the script after so many minutes, looked at between two of its steps.
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    script: PathBuf,
    /// Flags of the script; `outlier run SCRIPT --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

fn host_key(word: &str) -> Result<Named, String> {
    trust::parse(word).ok_or_else(|| "write SHA256:… as `ssh-keygen -lf` prints it, or HOST=SHA256:…".to_string())
}

/// Takes out a flag that is ours wherever it stands.
fn take(flags: &mut Vec<String>, flag: &str) -> bool {
    let before = flags.len();
    flags.retain(|word| word != flag);
    flags.len() < before
}

fn context(mut asked: Run, quiet: bool) -> Context {
    let quiet = take(&mut asked.flags, "--quiet") || quiet;
    let words = asked.flags.iter().filter_map(|word| trust::parse(word));
    trust::trust(asked.host_key.into_iter().chain(words).collect());
    let time = asked.max_minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e6)));
    let bounds = Bounds { operations: asked.max_steps, time, commands_here: asked.allow_commands };
    let mut context = Context::new(PathBuf::new(), asked.script, asked.flags, bars::watch(quiet));
    context.bounds = bounds;
    context
}

pub fn run(asked: Run, quiet: bool) -> ExitCode {
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
        eprintln!("{line}");
    }
    let Ok(outcome) = outcome else { return ExitCode::from(PANICKED) };
    match plan::compare(&context) {
        Ok(Some(text)) => context.watch.line(text.trim_end()),
        Ok(None) => (),
        Err(error) => gpus::tell(&error),
    }
    if ending.leaked {
        if let Err(diagnostic) = outcome {
            eprintln!("{diagnostic}");
        }
        return ExitCode::from(LEAKED);
    }
    match outcome {
        Ok(()) if interrupt_requested() => ExitCode::from(INTERRUPTED),
        Ok(()) if context.failed() => ExitCode::from(FAILED_MODEL),
        Ok(()) => ExitCode::SUCCESS,
        Err(diagnostic) => fail(&diagnostic),
    }
}

fn carried_out(context: &Arc<Context>) -> std::thread::Result<Result<(), Box<host::Diagnostic>>> {
    let engine = host::engine(context);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host::run(&engine, context)))
}

pub fn plan(mut asked: Run, quiet: bool) -> ExitCode {
    take(&mut asked.flags, "--dry-run");
    let context = match context(asked, quiet).planned() {
        Ok(context) => Arc::new(context),
        Err(error) => return super::done(Err(error)),
    };
    let outcome = carried_out(&context);
    let Ok(outcome) = outcome else { return ExitCode::from(PANICKED) };
    let Some(mut plan) = Plan::of(&context) else { return ExitCode::from(PANICKED) };
    let stored = outcome.is_ok().then(|| plan.store(&context.results()));
    print!("{}", plan.text());
    match stored {
        Some(Ok(file)) => {
            context.watch.line(&format!("{}: the next run with these words is compared with it", file.display()))
        }
        Some(Err(error)) => return super::done(Err(error)),
        None => (),
    }
    match outcome {
        Ok(()) if context.failed() => ExitCode::from(FAILED_MODEL),
        Ok(()) => ExitCode::SUCCESS,
        Err(diagnostic) => fail(&diagnostic),
    }
}
