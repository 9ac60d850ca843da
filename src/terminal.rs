//! The only file that writes to stdout and stderr. A failure to write never ends the work that the
//! output describes.
//!
//! A closed pipe (`| head -1`) is no failure: the stream is no longer written to. Any other failure
//! (`> disk` when it is full) is reported once on stderr, and `broken` makes the program end with
//! an exit code of its own.
//!
//! The text may come from machines, hubs, files and scripts. Control characters are therefore
//! escaped by `visible` in all text for stderr and for terminals.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub use crate::plain::{one_line, visible};
use crate::words::in_lines;

/// A stream and its state.
struct Stream {
    name: &'static str,
    /// None if the stream could not be opened, or if writing has failed.
    file: Option<File>,
    /// The reason for which writing failed, unless the reader closed the pipe.
    broken: Option<String>,
}

static OUT: OnceLock<Mutex<Stream>> = OnceLock::new();
/// Whether a file that describes the work, such as a log, could not be written.
static LOST: AtomicBool = AtomicBool::new(false);
static ERR: OnceLock<Mutex<Stream>> = OnceLock::new();

fn stdout() -> MutexGuard<'static, Stream> {
    let stream = OUT.get_or_init(|| Mutex::new(Stream::of("stdout", std::io::stdout().as_fd())));
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stderr() -> MutexGuard<'static, Stream> {
    let stream = ERR.get_or_init(|| Mutex::new(Stream::of("stderr", std::io::stderr().as_fd())));
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    fn of(name: &'static str, fd: BorrowedFd) -> Self {
        Self { name, file: fd.try_clone_to_owned().ok().map(File::from), broken: None }
    }

    /// Writes all bytes. Returns the message about a failure, if this is the first one.
    fn write(&mut self, bytes: &[u8]) -> Option<String> {
        let outcome = write_all(self.file.as_mut()?, bytes);
        outcome.err().and_then(|error| self.failed(&error))
    }

    fn failed(&mut self, error: &std::io::Error) -> Option<String> {
        self.file = None;
        // The reader has closed the pipe, or the stream was never open.
        if error.kind() == ErrorKind::BrokenPipe || error.raw_os_error() == Some(libc::EBADF) {
            return None;
        }
        self.broken = Some(error.to_string());
        Some(format!("error: writing to {}: {error}; no more is shown there, the work goes on\n", self.name))
    }
}

fn write_all(file: &mut File, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            // Another program has made the stream non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for(file),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the stream accepts more bytes.
fn wait_for(file: &File) {
    let mut asked = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the array has one entry, which lives as long as the call.
    unsafe { libc::poll(&mut asked, 1, 1000) };
}

/// The number of columns if a terminal does not report it.
const USUAL_WIDTH: usize = 80;

/// Returns whether the environment permits colours and bold letters on a terminal. `NO_COLOR` and
/// `CLICOLOR=0` forbid them, and a dumb terminal has none unless `CLICOLOR_FORCE` is set:
/// <https://no-color.org>, <https://bixense.com/clicolors>.
pub fn may_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() || set("CLICOLOR").is_some_and(|value| value == "0") {
        return false;
    }
    !is_dumb() || set("CLICOLOR_FORCE").is_some_and(|value| value != "0")
}

/// Returns whether the terminal shows lines but cannot draw over them.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|name| name == "dumb")
}

/// Returns the number of columns of stdout, if it is a terminal. A file or a pipe has no width.
pub fn width() -> Option<usize> {
    width_of(std::io::stdout().as_raw_fd())
}

/// Returns the same for stderr.
pub fn note_width() -> Option<usize> {
    width_of(std::io::stderr().as_raw_fd())
}

fn width_of(fd: RawFd) -> Option<usize> {
    // SAFETY: both calls read a descriptor that stays open while the program runs, and `size` is
    // written completely or not at all.
    let (terminal, size) = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::isatty(fd) == 1, (libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) == 0).then_some(size.ws_col))
    };
    terminal.then(|| size.filter(|columns| *columns > 0).map_or(USUAL_WIDTH, usize::from))
}

/// Writes text to stdout. Text for a file or another program is not changed, because it may be
/// data.
pub fn out(text: impl Display) {
    let text = text.to_string();
    let mut stream = stdout();
    let shown = stream.file.as_ref().is_some_and(|file| file.is_terminal());
    let text = if shown { visible(&text) } else { text.as_str().into() };
    let told = stream.write(text.as_bytes());
    drop(stream);
    if let Some(told) = told {
        err(told);
    }
}

/// Backgrounds of marked text, from weak to strong, of the 256 colours of terminals. Black letters
/// are legible on all of them.
const MARKS: [u8; 5] = [230, 222, 215, 208, 202];

/// Writes a part of a line to a terminal, marked by `step` from 1 to 5. Only for streams that
/// `may_colour` permits.
pub fn painted(text: &str, step: usize) {
    let mark = MARKS[step.clamp(1, MARKS.len()) - 1];
    let told = stdout().write(format!("\u{1b}[38;5;16;48;5;{mark}m{}\u{1b}[0m", visible(text)).as_bytes());
    if let Some(told) = told {
        err(told);
    }
}

/// Writes text and a line break to stdout.
pub fn line(text: impl Display) {
    out(format!("{text}\n"));
}

/// Writes sentences to stdout. On a terminal, lines are broken between words.
pub fn sentence(text: impl Display) {
    line(in_lines(&text.to_string(), width()));
}

/// Writes text to stderr.
pub fn err(text: impl Display) {
    // A failure of stderr itself cannot be reported.
    let _ = stderr().write(visible(&text.to_string()).as_bytes());
}

/// Writes text and a line break to stderr. On a terminal, lines are broken between words.
pub fn note(text: impl Display) {
    err(format!("{}\n", for_stderr(&text.to_string())));
}

/// Formats text as `note` prints it.
pub fn for_stderr(text: &str) -> String {
    in_lines(&visible(text), note_width())
}

/// Handles the result of a library that writes to stdout or stderr by itself.
pub fn came_of(to_stdout: bool, outcome: std::io::Result<()>) {
    let Err(error) = outcome else { return };
    match to_stdout {
        true => {
            let told = stdout().failed(&error);
            told.iter().for_each(err);
        }
        false => drop(stderr().failed(&error)),
    }
}

/// Reports that `what`, such as a log, could not be written. The work goes on.
pub fn lost(what: impl Display, error: &std::io::Error) {
    LOST.store(true, Ordering::Relaxed);
    note(format!("error: writing to {what}: {error}; no more is written there, the work goes on"));
}

/// Returns whether any output could not be written although somebody may be reading it.
pub fn broken() -> bool {
    stdout().broken.is_some() || stderr().broken.is_some() || LOST.load(Ordering::Relaxed)
}
