//! `outlier worker`: what this program is on a machine that somebody else's copy of it works on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::session::{self, AtEnd, Inherited, Limits, Starter};
use crate::terminal;

#[derive(Subcommand)]
pub(super) enum Worker {
    /// Guards this machine until a limit is reached: starts the worker when a client comes, and gives the machine back at the end.
    Serve(Settings),
    /// Carries out requests; started by the guardian.
    #[command(hide = true)]
    Work(Work),
    /// Ends the pod that it is called in.
    EndPod,
    /// Passes requests from stdin to the worker and its answers to stdout; starts the worker if none serves.
    Attach(Settings),
}

#[derive(Args)]
pub(super) struct Settings {
    /// Where socket, lock and log are.
    #[arg(long)]
    folder: PathBuf,
    /// Ends when no client has renewed its interest for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    lease: Option<Duration>,
    /// Ends when a call at work has made no progress for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    stall: Option<Duration>,
    /// Ends after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    lifetime: Option<Duration>,
    /// A shell command that gives the machine back, run at the end.
    #[arg(long, value_name = "COMMAND")]
    on_end: Option<String>,
    /// Removes the folder when a client or a signal has ended it.
    #[arg(long)]
    tidy: bool,
    /// Whoever watches the folder starts the worker.
    #[arg(long)]
    kept: bool,
}

#[derive(Args)]
pub(super) struct Work {
    #[command(flatten)]
    settings: Settings,
    /// Descriptors of the lock, the socket and the memory that the guardian shares.
    #[arg(long, value_name = "LOCK,SOCKET,MEMORY", value_delimiter = ',', num_args = 1, required = true)]
    inherited: Vec<i32>,
    /// The guardian's process id.
    #[arg(long)]
    guardian: u32,
    /// How the worker before this one died.
    #[arg(long)]
    died: Option<String>,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number = text.parse().ok().and_then(session::seconds);
    number.ok_or_else(|| "a number of seconds is 0 or more, and finite".to_string())
}

impl Settings {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--folder".into(), self.folder.clone().into()];
        let seconds = [("--lease", self.lease), ("--stall", self.stall), ("--lifetime", self.lifetime)];
        for (name, value) in seconds {
            if let Some(value) = value {
                arguments.extend([name.into(), value.as_secs_f64().to_string().into()]);
            }
        }
        if let Some(command) = &self.on_end {
            arguments.extend(["--on-end".into(), command.into()]);
        }
        if self.tidy {
            arguments.push("--tidy".into());
        }
        arguments
    }

    fn at_end(&self) -> AtEnd<'_> {
        AtEnd { command: self.on_end.as_deref(), tidy: self.tidy }
    }

    fn limits(&self) -> Limits {
        Limits { lease: self.lease, stall: self.stall, lifetime: self.lifetime }
    }
}

pub(super) fn run(worker: &Worker) -> Result<()> {
    match worker {
        Worker::EndPod => crate::gpu::runpod::end_self(),
        Worker::Attach(settings) => {
            let starter = if settings.kept { Starter::Keeper } else { Starter::Oneself };
            let started = session::start(&settings.folder, &settings.arguments(), starter);
            if let Err(error) = &started {
                // Where a client expects a greeting it quotes what it gets.
                terminal::line(error.message.replace('\n', " "));
            }
            session::attach(started?)
        }
        Worker::Serve(settings) => {
            session::guard(&settings.folder, &settings.limits(), settings.at_end(), &settings.arguments())
        }
        Worker::Work(Work { settings, inherited, guardian, died }) => {
            let descriptors = <[i32; 3]>::try_from(inherited.as_slice())
                .map_err(|_| crate::error::Error::bad_argument("--inherited names three descriptors"))?;
            let inherited = Inherited { descriptors, guardian: *guardian, died: died.clone() };
            session::work(&settings.folder, &settings.limits(), settings.at_end(), &inherited)
        }
    }
}
