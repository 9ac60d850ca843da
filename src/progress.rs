//! How long work reports its progress and is interrupted: a trait that the lower floors call and
//! the terminal implements.
//!
//! Events are plain data, so that they can be sent over a connection as well as drive a progress
//! bar.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One event of the work. `done` and `total` count layers, or bytes in a transfer, for which
/// `tokens` is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Begin {
        what: String,
        total: u64,
    },
    /// The `bytes` read and the `tokens` processed in one layer, and the time since the start,
    /// measured where the work is done. The values are 0 if they are unknown.
    Step {
        done: u64,
        bytes: u64,
        tokens: u64,
        #[serde(default)]
        seconds: f64,
    },
    End,
    /// A checkpoint has been written to `path`, relative to the project on the machine that works.
    /// It holds the state after `layer` layers.
    Checkpoint {
        path: String,
        layer: u64,
    },
    /// The work continues from a checkpoint, after `layer` layers.
    Resumed {
        path: String,
        layer: u64,
    },
    /// A problem that the user should know of although the work goes on.
    Warning(String),
    /// A remark about the model. The same remark is printed once in a run.
    Note(String),
}

pub trait Progress: Send + Sync {
    fn event(&self, event: Event);

    /// Returns true once the user has asked to stop. The work then stops at its next safe point
    /// with `Error::interrupted`.
    fn interrupted(&self) -> bool;
}

/// Reports nothing and is never interrupted: for tests and for work in the background.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}

    fn interrupted(&self) -> bool {
        false
    }
}

/// Whether the user has asked this process to stop. The signal handler sets it.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupt_requested() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The interval between two checks for an interruption while nothing else is done.
const DOZE: Duration = Duration::from_millis(50);

/// Sleeps for `time`, but returns early when `stopped` returns true.
pub fn doze(time: Duration, stopped: impl Fn() -> bool) {
    let begin = Instant::now();
    while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        if stopped() {
            return;
        }
        std::thread::sleep(left.min(DOZE));
    }
}

/// The function that prints notes of code that has no `Progress`.
static NOTES: OnceLock<fn(&str)> = OnceLock::new();

/// Sets the function that prints notes. Without it, they are not printed.
pub fn show_notes(show: fn(&str)) {
    let _ = NOTES.set(show);
}

/// Prints a note from code that has no `Progress`, on one line without control characters.
pub fn note(text: &str) {
    if let Some(show) = NOTES.get() {
        show(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn whoever_dozes_looks_up_now_and_then() {
        let looks = AtomicUsize::new(0);
        doze(Duration::from_secs(3600), || looks.fetch_add(1, Ordering::Relaxed) == 2);
        assert_eq!(looks.into_inner(), 3);
        let begin = Instant::now();
        doze(Duration::from_millis(120), || false);
        assert!(begin.elapsed() >= Duration::from_millis(120));
    }
}
