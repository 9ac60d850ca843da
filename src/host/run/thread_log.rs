//! The log of a thread: its reports are also written there.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
use crate::terminal::{lost, one_line, visible};

pub(crate) type Log = Arc<Mutex<Written>>;

/// An open log. The file is dropped after a write error.
pub(crate) struct Written {
    file: Option<File>,
    path: PathBuf,
}

thread_local! {
    /// The log of this thread.
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Opens a log for appending.
///
/// # Errors
/// `io` if its folder cannot be created or the file cannot be opened.
pub(crate) fn open(path: PathBuf) -> Result<Log> {
    let opening = |e: std::io::Error| Error::io(format!("writing {}", path.display()), &e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(opening)?;
    }
    // A link is not followed, and a pipe without a reader does not block.
    let mut options = File::options();
    options.create(true).append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = Some(options.open(&path).map_err(opening)?);
    Ok(Arc::new(Mutex::new(Written { file, path })))
}

/// Sets the log of this thread, and returns the previous one.
pub(crate) fn send_to(log: Option<Log>) -> Option<Log> {
    LOG.replace(log)
}

/// Appends a line to the log of this thread, if it has one.
pub(crate) fn line(text: &str) {
    LOG.with_borrow(|log| {
        if let Some(log) = log {
            write(log, text);
        }
    });
}

fn write(log: &Log, text: &str) {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    // A report may come from a machine: it must not look like another one, nor contain control
    // characters.
    let text = visible(text).replace('\n', "\n  ");
    let mut log = log.lock().expect("no panic under this lock");
    let line = format!("{time} {text}\n");
    if let Some(Err(error)) = log.file.as_mut().map(|file| file.write_all(line.as_bytes())) {
        log.file = None;
        lost(log.path.display(), &error);
    }
}

/// Progress reports that are also written to the log of the creating thread.
pub(crate) fn logged(progress: Arc<dyn Progress>) -> Arc<dyn Progress> {
    let log = LOG.with_borrow(Clone::clone);
    match log {
        Some(log) => Arc::new(Logged { progress, log, what: Mutex::default() }),
        None => progress,
    }
}

struct Logged {
    progress: Arc<dyn Progress>,
    log: Log,
    /// The current work and its number of steps.
    what: Mutex<(String, u64)>,
}

impl Progress for Logged {
    fn event(&self, event: Event) {
        let mut what = self.what.lock().expect("no panic under this lock");
        match &event {
            Event::Begin { what: name, total } => *what = (name.clone(), *total),
            Event::Step { done, .. } => write(&self.log, &format!("{}: {done}/{}", one_line(&what.0), what.1)),
            Event::Warning(text) | Event::Note(text) => write(&self.log, &one_line(text)),
            Event::Resumed { path, layer } => {
                write(&self.log, &format!("goes on after layer {layer}, from {}", one_line(path)))
            }
            Event::Checkpoint { .. } | Event::End => (),
        }
        drop(what);
        self.progress.event(event);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted()
    }
}
