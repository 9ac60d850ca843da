//! How long work tells what it does and is told to stop: a trait the lower floors call and the terminal implements.
//!
//! Events are plain data, so that they can cross a wire as well as drive a progress bar.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One thing worth showing. `done` and `total` count layers; in a transfer, where `tokens` is 0, bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Begin {
        what: String,
        total: u64,
    },
    /// `bytes` read and `tokens` of one layer, and the time since the beginning by the clock of whoever does the work; 0 where that
    /// is not told.
    Step {
        done: u64,
        bytes: u64,
        tokens: u64,
        #[serde(default)]
        seconds: f64,
    },
    End,
    /// The work so far has been written to `path`, relative to the project where the work runs: `layer` layers are done.
    Checkpoint {
        path: String,
        layer: u64,
    },
    /// The work goes on where an earlier run was: `layer` layers were done.
    Resumed {
        path: String,
        layer: u64,
    },
    /// Something the user should know although the work goes on.
    Warning(String),
    /// What the user should know of the model at hand: the same is shown once in a run, however often it is told.
    Note(String),
}

pub trait Progress: Send + Sync {
    fn event(&self, event: Event);

    /// True once the user has asked to stop; work stops at its next safe point with `Error::interrupted`.
    fn interrupted(&self) -> bool;
}

/// Shows nothing and is never interrupted: for tests and for work nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}

    fn interrupted(&self) -> bool {
        false
    }
}

/// The process-wide wish to stop, set by the signal handler.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupt_requested() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Between two looks at the wish to stop, while nothing is done.
const DOZE: Duration = Duration::from_millis(50);

/// Waits, and ends early when `stopped` is true.
pub fn doze(time: Duration, stopped: impl Fn() -> bool) {
    let begin = Instant::now();
    while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        if stopped() {
            return;
        }
        std::thread::sleep(left.min(DOZE));
    }
}

/// Where notes go for which no work's `Progress` is at hand.
static NOTES: OnceLock<fn(&str)> = OnceLock::new();

/// From now on notes are shown by this; before, and without it, they are not shown.
pub fn show_notes(show: fn(&str)) {
    let _ = NOTES.set(show);
}

/// Something the user should know, from a place that is told of nobody's progress: a line without control characters.
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
