//! This machine, as one that runs commands.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Listener, Machine, Output};
use crate::error::{Error, Result};
use crate::threads;

/// Interval of the checks whether the caller still waits for a silent command.
const TICK: Duration = Duration::from_millis(200);
/// Time between the request to end a command and killing it.
const GRACE: Duration = Duration::from_secs(2);

/// Runs commands by `/bin/sh`.
#[derive(Default)]
pub struct Here;

/// The same for commands of a script: each has its own process group, which ends with it.
pub struct HereGrouped;

fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}

impl Machine for Here {
    fn name(&self) -> String {
        "this machine".to_string()
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        carried_out(shell(command), input, output, |child| {
            let _ = child.kill();
        })
    }

    fn is_here(&self) -> bool {
        true
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        let opening = |e: std::io::Error| Error::io("starting a command", &e);
        let (ours, theirs) = UnixStream::pair().map_err(opening)?;
        let (input, output): (OwnedFd, OwnedFd) = (theirs.try_clone().map_err(opening)?.into(), theirs.into());
        let mut child = shell(command);
        let mut child = child.stdin(input).stdout(output).stderr(Stdio::null()).spawn().map_err(opening)?;
        // Without this thread it stays a zombie until this process ends, which is harmless.
        let _ = threads::start(move || child.wait());
        Ok(ours)
    }
}

impl Machine for HereGrouped {
    fn name(&self) -> String {
        Here.name()
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        let mut shell = shell(command);
        shell.process_group(0);
        carried_out(shell, input, output, end_group)
    }

    fn is_here(&self) -> bool {
        true
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        Here.open(command)
    }
}

/// Runs a command to its end, or until the caller gives up: then `end` ends it.
fn carried_out(
    mut command: Command,
    input: &mut (dyn Read + Send),
    output: &mut Listener,
    end: impl FnOnce(&mut Child),
) -> Result<i32> {
    let running = |e: std::io::Error| Error::io("running a command", &e);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(running)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (sender, pieces) = channel();
    let errors = sender.clone();
    // Not joined: child processes of an ended command may hold these open.
    let hear = move || pass_on(stdout.expect("piped"), |piece| sender.send((true, piece)).is_ok());
    let hear_errors = move || pass_on(stderr.expect("piped"), |piece| errors.send((false, piece)).is_ok());
    let heard = std::thread::scope(|scope| {
        let feed = move || {
            let mut stdin = stdin.expect("piped");
            // A command need not read its input.
            let _ = std::io::copy(input, &mut stdin).and_then(|_| stdin.flush());
        };
        let started = threads::start(hear).and_then(|_| threads::start(hear_errors));
        if let Err(error) = started.map(drop).and_then(|()| threads::start_in(scope, feed).map(drop)) {
            end(&mut child);
            return Err(Error::no_thread("a command", &error));
        }
        let heard = loop {
            let outcome = match pieces.recv_timeout(TICK) {
                Ok((true, piece)) => output(Output::Out(&piece)),
                Ok((false, piece)) => output(Output::Err(&piece)),
                Err(RecvTimeoutError::Timeout) => output(Output::Out(&[])),
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            };
            if outcome.is_err() {
                break outcome;
            }
        };
        if heard.is_err() {
            end(&mut child);
        }
        heard
    });
    let status = child.wait().map_err(running)?;
    heard?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Ends a command and its child processes: they are asked to end, and killed after a while.
fn end_group(child: &mut Child) {
    let group = -(child.id() as libc::pid_t);
    // SAFETY: the child has not been waited for, so that the number still belongs to its group.
    let signal = |signal| unsafe { libc::kill(group, signal) };
    signal(libc::SIGTERM);
    let begin = Instant::now();
    while begin.elapsed() < GRACE && is_running(child) {
        std::thread::sleep(TICK / 10);
    }
    signal(libc::SIGKILL);
}

/// True if a child runs. One that has ended is left to be waited for.
fn is_running(child: &Child) -> bool {
    // SAFETY: the all-zero value is valid, and the call fills it.
    unsafe {
        let mut answer: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, child.id() as libc::id_t, &mut answer, options) == 0 && answer.si_pid() == 0
    }
}

fn pass_on(mut from: impl Read, mut send: impl FnMut(Vec<u8>) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !send(buffer[..count].to_vec()) {
            return;
        }
    }
}
