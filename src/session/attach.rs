//! Runs on the machine for each connection: it makes sure that a worker is running, then copies
//! bytes between it and the standard streams.
//!
//! If all processes of a connection end with it, another process that watches the folder starts the
//! worker (`Machine::keeper`).

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::place::Place;
use crate::error::{Error, Result};
use crate::remote::quoted;
use crate::threads;

/// A started worker listens within this time.
const STARTUP: Duration = Duration::from_secs(50);
/// If the started worker ended because another was quicker, that one listens within this time.
const QUICKER: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// The process that starts the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// This process.
    Oneself,
    /// The process that watches the folder.
    Keeper,
}

fn starting(error: std::io::Error) -> Error {
    Error::io("starting the worker", &error)
}

/// Starts `outlier worker serve` with `arguments` as a separate process, unless one serves `folder`
/// already.
pub fn start(folder: &Path, arguments: &[OsString], starter: Starter) -> Result<UnixStream> {
    let place = match starter {
        Starter::Oneself => Place::make(folder)?,
        Starter::Keeper => Place::find(folder).map_err(|e| e.hint("does the job still run?"))?,
    };
    if let Some(stream) = place.connect() {
        return Ok(stream);
    }
    let mut child = match starter {
        Starter::Oneself => Some(spawn(&place, arguments)?),
        Starter::Keeper => {
            ask_keeper(&place, arguments)?;
            None
        }
    };
    let deadline = Instant::now() + STARTUP;
    let mut ended: Option<Instant> = None;
    loop {
        if let Some(stream) = place.connect() {
            return Ok(stream);
        }
        if ended.is_none() && child.as_mut().is_some_and(|child| child.try_wait().ok().flatten().is_some()) {
            ended = Some(Instant::now());
        }
        if Instant::now() > deadline || ended.is_some_and(|ended| ended.elapsed() > QUICKER) {
            let (at_once, last_words) = (ended.is_some(), place.last_word());
            return Err(Error::of(Failure::WorkerEnded { at_once, last_words }));
        }
        std::thread::sleep(POLL);
    }
}

fn spawn(place: &Place, arguments: &[OsString]) -> Result<Child> {
    let log = place.log()?;
    let mut command = Command::new(std::env::current_exe().map_err(starting)?);
    command.args(["worker", "serve"]).args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(starting)?).stderr(log);
    // SAFETY: setsid is async-signal-safe. In its own session the worker outlives the connection.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    command.spawn().map_err(starting)
}

/// Leaves the worker's script where the keeper looks for it.
fn ask_keeper(place: &Place, arguments: &[OsString]) -> Result<()> {
    // The keeper's shell opens the log by name, so the log must exist and belong to us before.
    drop(place.log()?);
    let here = std::env::current_dir().map_err(starting)?;
    let program = std::env::current_exe().map_err(starting)?;
    let word = |path: &Path| quoted(&path.display().to_string());
    let arguments: Vec<String> = arguments.iter().map(|argument| quoted(&argument.to_string_lossy())).collect();
    let script = format!(
        "cd {} && exec {} worker serve {} >>{} 2>&1 </dev/null\n",
        word(&here),
        word(&program),
        arguments.join(" "),
        word(&place.path().join("worker.log"))
    );
    place.leave("start", &script).map_err(|e| {
        Error::io(format!("asking for a worker in {}", place.path().display()), &e).or_hint("does the job still run?")
    })
}

/// Copies stdin to the worker and its answers to stdout, until either ends.
pub fn attach(worker: UnixStream) -> Result<()> {
    let mut answers = worker.try_clone().map_err(|e| Error::io("attaching to the worker", &e))?;
    let mut requests = worker;
    let sending = threads::start(move || {
        let _ = copy(&mut std::io::stdin().lock(), &mut requests);
        // The client has disconnected without waiting for its answers.
        let _ = requests.shutdown(Shutdown::Both);
    });
    sending.map_err(|e| Error::no_thread("the connection to the worker", &e))?;
    let _ = copy(&mut answers, &mut std::io::stdout().lock());
    Ok(())
}

/// Like `std::io::copy`, which may hold data back in a buffered writer. Here every piece is
/// flushed.
fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count]).and_then(|()| to.flush())?,
        }
    }
}
