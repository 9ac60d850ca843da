//! What runs on the machine for each connection: makes sure that a worker serves, then passes bytes between it and the
//! standard streams.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::worker::socket;
use crate::error::{Error, Kind, Result};

/// A worker that has been started listens within this time.
const STARTUP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Starts `outlier worker serve` with `arguments` as a process of its own, unless one serves `folder` already.
pub fn start(folder: &Path, arguments: &[String]) -> Result<UnixStream> {
    if let Ok(stream) = UnixStream::connect(socket(folder)) {
        return Ok(stream);
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(format!("creating {}", folder.display()), &e))?;
    let path = folder.join("worker.log");
    let starting = |e: std::io::Error| Error::io("starting the worker", &e);
    let log = std::fs::File::options().create(true).append(true).open(&path).map_err(starting)?;
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
    let mut child = command.spawn().map_err(starting)?;
    let deadline = Instant::now() + STARTUP;
    loop {
        if let Ok(stream) = UnixStream::connect(socket(folder)) {
            return Ok(stream);
        }
        // Another one may have been quicker: then this one has ended, and the socket appears all the same.
        let ended = child.try_wait().ok().flatten().is_some();
        if Instant::now() > deadline {
            let end = std::fs::read_to_string(&path).unwrap_or_default();
            let end = end.trim().lines().next_back().unwrap_or("it said nothing").to_string();
            let what = if ended { "ended at once" } else { "does not listen" };
            return Err(Error::new(Kind::Lost, format!("the worker {what}: {end}")));
        }
        std::thread::sleep(POLL);
    }
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
