//! `outlier worker`: what this program is on a machine that somebody else's copy of it works on.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::session::{self, Limits, Starter};
use crate::terminal;

#[derive(Subcommand)]
pub enum Worker {
    /// Serves requests on a socket until a limit is reached.
    Serve(Settings),
    /// Ends the pod that it is called in.
    EndPod,
    /// Passes requests from stdin to the worker and its answers to stdout; starts the worker if none serves.
    Attach(Settings),
}

#[derive(Args)]
pub struct Settings {
    /// Where socket, lock and log are.
    #[arg(long)]
    folder: PathBuf,
    /// Ends when no client has renewed its interest for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    lease: Option<f64>,
    /// Ends when a call at work has made no progress for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    stall: Option<f64>,
    /// Ends after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    lifetime: Option<f64>,
    /// A shell command that gives the machine back, run at the end.
    #[arg(long, value_name = "COMMAND")]
    on_end: Option<String>,
    /// Whoever watches the folder starts the worker.
    #[arg(long)]
    kept: bool,
}

impl Settings {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--folder".to_string(), self.folder.display().to_string()];
        let seconds = [("--lease", self.lease), ("--stall", self.stall), ("--lifetime", self.lifetime)];
        for (name, value) in seconds {
            if let Some(value) = value {
                arguments.extend([name.to_string(), value.to_string()]);
            }
        }
        if let Some(command) = &self.on_end {
            arguments.extend(["--on-end".to_string(), command.clone()]);
        }
        arguments
    }
}

pub fn run(worker: &Worker) -> Result<()> {
    match worker {
        Worker::EndPod => crate::gpu::runpod::end_self(),
        Worker::Attach(settings) => {
            let starter = if settings.kept { Starter::Keeper } else { Starter::Oneself };
            session::attach(session::start(&settings.folder, &settings.arguments(), starter)?)
        }
        Worker::Serve(settings) => {
            let limits = Limits { lease: settings.lease, stall: settings.stall, lifetime: settings.lifetime };
            let reason = session::serve(&settings.folder, &limits)?;
            terminal::line(format!("the worker ends: {reason}"));
            if let Some(command) = &settings.on_end {
                give_back(command);
            }
            Ok(())
        }
    }
}

/// Again and again: a machine that stays costs money.
fn give_back(command: &str) {
    for _ in 0..GIVE_BACK_TRIES {
        match std::process::Command::new("/bin/sh").args(["-c", command]).status() {
            Ok(status) if status.success() => return,
            Ok(status) => terminal::line(format!("giving the machine back: {status}")),
            Err(error) => terminal::line(format!("giving the machine back: {error}")),
        }
        std::thread::sleep(GIVE_BACK_PAUSE);
    }
}

const GIVE_BACK_TRIES: usize = 1000;
const GIVE_BACK_PAUSE: std::time::Duration = std::time::Duration::from_secs(30);
