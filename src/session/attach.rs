//! What runs on the machine for each connection: makes sure that a worker serves, then passes bytes between it and the
//! standard streams.
//!
//! Where everything that a connection has started ends with it, a keeper starts the worker: whoever watches the folder
//! (`Machine::keeper`).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::worker::socket;
use crate::error::{Error, Kind, Result};
use crate::remote::quoted;

/// A worker that has been started listens within this time.
const STARTUP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Who starts the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// The process that asks for it.
    Oneself,
    /// Whoever watches the folder.
    Keeper,
}

fn starting(error: std::io::Error) -> Error {
    Error::io("starting the worker", &error)
}

/// Starts `outlier worker serve` with `arguments` as a process of its own, unless one serves `folder` already.
pub fn start(folder: &Path, arguments: &[String], starter: Starter) -> Result<UnixStream> {
    if let Ok(stream) = UnixStream::connect(socket(folder)) {
        return Ok(stream);
    }
    let log = folder.join("worker.log");
    let mut child = match starter {
        Starter::Oneself => {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(format!("creating {}", folder.display()), &e))?;
            Some(spawn(&log, arguments)?)
        }
        Starter::Keeper => {
            ask_keeper(folder, &log, arguments)?;
            None
        }
    };
    let deadline = Instant::now() + STARTUP;
    loop {
        if let Ok(stream) = UnixStream::connect(socket(folder)) {
            return Ok(stream);
        }
        // Another one may have been quicker: then this one has ended, and the socket appears all the same.
        let ended = child.as_mut().is_some_and(|child| child.try_wait().ok().flatten().is_some());
        if Instant::now() > deadline {
            let end = std::fs::read_to_string(&log).unwrap_or_default();
            let end = end.trim().lines().next_back().unwrap_or("it said nothing").to_string();
            let what = if ended { "ended at once" } else { "does not listen" };
            return Err(Error::new(Kind::Lost, format!("the worker {what}: {end}")));
        }
        std::thread::sleep(POLL);
    }
}

fn spawn(log: &Path, arguments: &[String]) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log).map_err(starting)?;
    let mut command = Command::new(std::env::current_exe().map_err(starting)?);
    command.args(["worker", "serve"]).args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(starting)?).stderr(log);
    // SAFETY: setsid is async-signal-safe. In a session of its own the worker outlives the connection.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    command.spawn().map_err(starting)
}

/// Leaves the script of the worker where the keeper looks for it.
fn ask_keeper(folder: &Path, log: &Path, arguments: &[String]) -> Result<()> {
    let here = std::env::current_dir().map_err(starting)?;
    let program = std::env::current_exe().map_err(starting)?;
    let word = |path: &Path| quoted(&path.display().to_string());
    let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    let script = format!(
        "cd {} && exec {} worker serve {} >>{} 2>&1 </dev/null\n",
        word(&here),
        word(&program),
        arguments.join(" "),
        word(log)
    );
    // Under its name only when it is whole.
    let asking = |e: std::io::Error| {
        Error::io(format!("asking for a worker in {}", folder.display()), &e).hint("does the job still run?")
    };
    let draft = folder.join(format!("start.{}", std::process::id()));
    std::fs::write(&draft, script).and_then(|()| std::fs::rename(&draft, folder.join("start"))).map_err(asking)
}

/// Copies stdin to the worker and what it answers to stdout, until either ends.
pub fn attach(worker: UnixStream) -> Result<()> {
    let mut answers = worker.try_clone().map_err(|e| Error::io("attaching to the worker", &e))?;
    let mut requests = worker;
    std::thread::spawn(move || {
        let _ = copy(&mut std::io::stdin().lock(), &mut requests);
        // The client has gone: it would have waited for its answers.
        let _ = requests.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut answers, &mut std::io::stdout().lock());
    Ok(())
}

/// `std::io::copy` may hold data back in a buffered writer: here every piece goes on at once.
fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count]).and_then(|()| to.flush())?,
        }
    }
}
