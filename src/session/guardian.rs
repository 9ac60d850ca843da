//! The guardian of a machine: a small process that starts the worker, outlives it, and ends the
//! machine when it is no longer needed. It owns the socket, so that a client that connects while no
//! worker runs makes the next one start. It does little, so that only a signal meant for it ends
//! it. In that case the worker takes its place.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::place::{Lock, Place};
use super::pulse::{Limits, Page};
use crate::error::{Error, Result};
use crate::terminal;

/// Interval of the checks of the limits.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Time that calls have to stop at a safe point before the process ends.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// Additional time that a stopping worker has to end.
const TIDYING: Duration = Duration::from_secs(5);
/// A stopping worker without a heartbeat for this time is stuck.
const STILL: Duration = Duration::from_secs(8);
/// Interval of the updates of the lock file's time, which show that the machine is looked after.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Pause before the next worker after the first, second, … death in a row. The last one applies to
/// all further ones.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
const GIVE_BACK_TRIES: usize = 1000;
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(30);
/// Time limit of one try.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(120);

/// Number of signals that told this process to stop.
static TOLD: AtomicU32 = AtomicU32::new(0);

extern "C" fn tell(_: libc::c_int) {
    TOLD.fetch_add(1, Ordering::SeqCst);
}

/// How often this process was told to stop.
pub(super) fn told() -> u32 {
    TOLD.load(Ordering::SeqCst)
}

/// Counts termination signals from now on, in place of earlier handlers, and ignores SIGHUP.
/// Repeated signals do not keep the machine from being terminated.
pub(super) fn take_signals() {
    let tell: extern "C" fn(libc::c_int) = tell;
    // SAFETY: the handler only counts, which is async-signal-safe.
    unsafe {
        libc::signal(libc::SIGTERM, tell as *const () as libc::sighandler_t);
        libc::signal(libc::SIGINT, tell as *const () as libc::sighandler_t);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

/// Writes a line to the log. Errors are ignored, because the machine must be ended in any case.
pub(super) fn say(text: &str) {
    terminal::line(text);
}

/// The start parameters of a worker: descriptors of the lock, the socket and the page, and the
/// guardian's process id.
#[derive(Clone, Debug)]
pub struct Inherited {
    pub descriptors: [i32; 3],
    pub guardian: u32,
    /// How the previous worker died.
    pub died: Option<String>,
}

/// The objects behind `Inherited`, owned by this process. Its child processes do not inherit them.
pub struct Adopted {
    pub lock: Lock,
    pub listener: UnixListener,
    pub page: Page,
}

impl Inherited {
    pub fn adopt(&self) -> Result<Adopted> {
        let [lock, listener, page] = self.descriptors;
        let own = |descriptor: RawFd| {
            // SAFETY: it only sets a flag. An invalid descriptor returns an error.
            let known = descriptor > 2 && unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
            // SAFETY: the descriptor is open, and nothing else in this process owns it, because
            // each is passed once.
            let owned = known.then(|| unsafe { OwnedFd::from_raw_fd(descriptor) });
            owned.ok_or_else(|| Error::of(Failure::NotInherited(descriptor)))
        };
        if lock == listener || lock == page || listener == page {
            return Err(Error::of(Failure::DescriptorsNotThree));
        }
        let (lock, listener, page) = (own(lock)?, own(listener)?, own(page)?);
        Ok(Adopted { lock: Lock(lock.into()), listener: listener.into(), page: Page::of(page.into())? })
    }
}

/// What is done with the machine and its folder at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtEnd<'a> {
    /// A shell command that terminates the machine.
    pub command: Option<&'a str>,
    /// True if the folder is removed after a requested end. After a limit was reached, its log
    /// tells which.
    pub tidy: bool,
}

/// Serves `folder` until a limit is reached or an end is requested, then acts on `at_end`.
/// `arguments` are those of `outlier worker serve`.
pub fn guard(folder: &Path, limits: &Limits, at_end: AtEnd, arguments: &[OsString]) -> Result<()> {
    // SAFETY: it only sets the process's mask for new files.
    let mask = unsafe { libc::umask(0o077) };
    let place = Place::make(folder)?;
    let lock = place.lock()?;
    place.name_process();
    take_signals();
    let listener = place.listen()?;
    let page = Page::new(limits)?;
    let spared = spare_from_memory_killer();
    let mut guardian = Guardian { limits, arguments, mask, spared, lock, listener, page, died: None };
    let reason = guardian.watch();
    let Guardian { lock, listener, page, .. } = guardian;
    drop(listener);
    end_machine(Some(&place), &lock, &page, &reason, at_end);
    Ok(())
}

struct Guardian<'a> {
    limits: &'a Limits,
    arguments: &'a [OsString],
    mask: libc::mode_t,
    /// The setting that the guardian changed for itself and the worker gets back.
    spared: Option<String>,
    lock: Lock,
    listener: UnixListener,
    page: Page,
    died: Option<String>,
}

impl Guardian<'_> {
    /// Runs until it is time to end, and returns the reason. No worker runs then.
    fn watch(&mut self) -> String {
        let mut worker: Option<Child> = None;
        let mut rests_until = Instant::now();
        let mut shown: Option<Instant> = None;
        loop {
            if shown.is_none_or(|shown| shown.elapsed() >= SIGN_OF_LIFE) {
                self.lock.show_life();
                shown = Some(Instant::now());
            }
            if told() > 0 {
                self.page.end_by_signal();
            }
            if let Some(reason) = self.page.over(self.limits) {
                if let Some(worker) = worker {
                    self.stop(worker);
                }
                return reason;
            }
            let died = match &mut worker {
                Some(running) => {
                    std::thread::sleep(TICK);
                    match running.try_wait() {
                        Ok(None) => None,
                        // A worker that was told to stop has noted that on the page, where the next
                        // iteration finds it.
                        Ok(Some(_)) if self.page.is_ending() => None,
                        Ok(Some(status)) if is_told(status) => {
                            self.page.end_by_signal();
                            None
                        }
                        Ok(Some(status)) => Some(manner(status)),
                        Err(error) => Some(format!("it cannot be waited for: {error}")),
                    }
                }
                None if Instant::now() < rests_until => {
                    std::thread::sleep(TICK.min(rests_until.saturating_duration_since(Instant::now())));
                    None
                }
                None if !self.somebody_waits() => None,
                None => match self.start() {
                    Ok(started) => {
                        worker = Some(started);
                        None
                    }
                    Err(error) => Some(format!("it could not be started: {error}")),
                },
            };
            if let Some(how) = died {
                let deaths = self.page.died();
                rests_until = Instant::now() + PAUSES[(deaths as usize - 1).min(PAUSES.len() - 1)];
                say(&format!("the worker has died: {how}; the next client that comes gets another one"));
                self.died = Some(how);
                worker = None;
            }
        }
    }

    /// True if a client connects within a tick.
    fn somebody_waits(&self) -> bool {
        let mut asked = libc::pollfd { fd: self.listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the array has one element, as the call says.
        unsafe { libc::poll(&raw mut asked, 1, TICK.as_millis() as libc::c_int) == 1 }
    }

    fn start(&self) -> std::io::Result<Child> {
        self.page.begins();
        let descriptors = [self.lock.0.as_raw_fd(), self.listener.as_raw_fd(), self.page.descriptor()];
        let [lock, listener, page] = descriptors;
        let mut command = Command::new(this_program()?);
        command.arg0("outlier").args(["worker", "work"]).args(self.arguments).stdin(Stdio::null());
        command.args(["--inherited", &format!("{lock},{listener},{page}")]);
        command.args(["--guardian", &std::process::id().to_string()]);
        if let Some(died) = &self.died {
            command.args(["--died", died]);
        }
        let mask = self.mask;
        let score = self.spared.clone();
        // SAFETY: only async-signal-safe calls, without memory allocation.
        unsafe {
            command.pre_exec(move || {
                libc::umask(mask);
                for descriptor in descriptors {
                    libc::fcntl(descriptor, libc::F_SETFD, 0);
                }
                if let Some(score) = &score {
                    let file = libc::open(SCORE.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                    libc::write(file, score.as_ptr().cast(), score.len());
                    libc::close(file);
                }
                Ok(())
            });
        }
        command.spawn()
    }

    /// Stops the worker: its calls end, then the worker ends, or is killed.
    fn stop(&self, mut worker: Child) {
        self.page.end_by_guardian();
        let begin = Instant::now();
        let told_before = told();
        while let Ok(None) = worker.try_wait() {
            let stands = begin.elapsed() > STILL && self.page.since_beat() > STILL;
            if stands || begin.elapsed() > GRACE + TIDYING || told() > told_before {
                let _ = worker.kill();
                let _ = worker.wait();
                return;
            }
            std::thread::sleep(TICK / 5);
        }
    }
}

/// The running program, even if its file has been replaced or removed.
fn this_program() -> std::io::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() { Ok(link.to_path_buf()) } else { std::env::current_exe() }
}

/// Shells and this program report the end by a signal as 128 plus its number.
fn is_told(status: ExitStatus) -> bool {
    matches!(status.signal(), Some(libc::SIGTERM | libc::SIGINT)) || matches!(status.code(), Some(130 | 143))
}

fn manner(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => "it was killed (signal 9), as the system does when memory is short".to_string(),
        (Some(libc::SIGABRT), _) => "it aborted (signal 6), as when memory is not to be had".to_string(),
        (Some(signal), _) => format!("it was ended by signal {signal}"),
        (None, code) => format!("it ended by itself with exit code {}", code.unwrap_or_default()),
    }
}

const SCORE: &std::ffi::CStr = c"/proc/self/oom_score_adj";

/// Makes the system kill any other process first when memory is short. Returns the previous
/// setting. If it is not permitted, the worker is killed first anyway, because it is far larger.
fn spare_from_memory_killer() -> Option<String> {
    let path = SCORE.to_str().ok()?;
    let before = std::fs::read_to_string(path).ok()?;
    std::fs::write(path, "-1000").ok().map(|()| before.trim().to_string())
}

/// Terminates the machine. No worker runs any more, or this is it.
pub(super) fn end_machine(place: Option<&Place>, lock: &Lock, page: &Page, reason: &str, at_end: AtEnd) {
    if let Some(place) = place {
        place.close();
    }
    lock.note(reason);
    say(&format!("the worker ends: {reason}"));
    if let Some(command) = at_end.command {
        give_back(command);
    }
    if let Some(place) = place.filter(|_| at_end.tidy && page.was_told()) {
        place.remove();
    }
}

/// The status of a command. None if it takes longer than `limit`, and was ended.
fn status_within(limit: Duration, command: &str) -> std::io::Result<Option<ExitStatus>> {
    let mut child = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).process_group(0).spawn()?;
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(TICK.min(limit));
    }
    // SAFETY: the child leads its own process group, and has not been waited for.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
    child.wait().map(|_| None)
}

/// Retries for hours, because a machine that stays costs money.
fn give_back(command: &str) {
    for _ in 0..GIVE_BACK_TRIES {
        match status_within(GIVE_BACK_LIMIT, command) {
            Ok(Some(status)) if status.success() => return,
            Ok(Some(status)) => say(&format!("giving the machine back: {status}")),
            Ok(None) => say(&format!("giving the machine back: no end within {} s", GIVE_BACK_LIMIT.as_secs())),
            Err(error) => say(&format!("giving the machine back: {error}")),
        }
        std::thread::sleep(GIVE_BACK_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_gives_back_and_hangs_is_ended_for_the_next_try() {
        let limit = Duration::from_millis(300);
        assert_eq!(status_within(limit, "sleep 900 & wait").unwrap(), None);
        let status = status_within(Duration::from_secs(600), "exit 3").unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
