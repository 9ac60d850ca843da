//! Commands on machines and clusters that end in time, whatever becomes of the other end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::progress::{interrupt_requested, note};
use crate::remote::{self, Finished, Machine};
use crate::threads;

/// A command that takes longer is told of.
const UNTOLD: Duration = Duration::from_secs(5);
/// Interval of the checks whether the user has asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Time limits of a command.
pub(super) struct Limits {
    pub(super) whole: Duration,
    /// Once the user has asked to stop: of a command that is at work then, and of one that is
    /// started later, to end a machine.
    pub(super) at_work: Duration,
    pub(super) last: Duration,
}

/// Runs `command` on `machine`, and tells what is waited for where that takes a while.
///
/// # Errors
/// `Timeout` if it takes longer than `limits`; the message names it by `what`. The command is ended
/// then.
pub(super) fn within(
    limits: &Limits,
    machine: &Arc<dyn Machine>,
    command: &str,
    input: &str,
    what: &str,
) -> Result<Finished> {
    let (sender, ended) = channel();
    let (commands, command, input) = (machine.clone(), command.to_string(), input.to_string());
    let wanted = Arc::new(AtomicBool::new(true));
    let still_wanted = wanted.clone();
    // A separate thread waits for it, and may be abandoned.
    threads::start(move || {
        let wanted = || still_wanted.load(Ordering::Relaxed);
        sender.send(remote::collect_while(&*commands, &command, &mut input.as_bytes(), &wanted))
    })
    .map_err(|e| Error::no_thread("a command of a machine", &e))?;
    let begin = Instant::now();
    let (mut hurried, mut told) = (interrupt_requested(), false);
    let mut limit = if hurried { limits.whole.min(limits.last) } else { limits.whole };
    while begin.elapsed() < limit {
        match ended.recv_timeout(LOOK) {
            Ok(finished) => return finished,
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if !hurried && interrupt_requested() {
            (hurried, limit) = (true, limit.min(begin.elapsed() + limits.at_work));
        }
        if !told && begin.elapsed() > UNTOLD {
            note(&format!("{}: waiting for the end of {what}, at most {} s", machine.name(), limit.as_secs()));
            told = true;
        }
    }
    wanted.store(false, Ordering::Relaxed);
    let (machine, what, waited) = (machine.name(), what.to_string(), begin.elapsed());
    Err(Error::of(Failure::CommandHangs { machine, what, waited }))
}

/// The stdout of a command that has ended.
///
/// # Errors
/// If it has failed.
pub(super) fn text_of(machine: &dyn Machine, finished: Finished) -> Result<String> {
    match finished.code {
        0 => Ok(finished.out),
        code => {
            let (machine, complaint) = (machine.name(), finished.complaint().to_string());
            Err(Error::of(Failure::CommandFailed { machine, code, complaint }))
        }
    }
}
