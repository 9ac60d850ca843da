//! What one run of a script shares: where it runs, what was asked for, who watches, what has gone wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::progress::Progress;
use crate::session::{Fleet, Local, Session};

/// Gives every piece of long work something to report to.
pub trait Watch: Send + Sync {
    fn progress(&self) -> Arc<dyn Progress>;

    /// One line for the user that is not data.
    fn line(&self, text: &str);
}

pub struct Context {
    /// The project: where `results/`, `logs/` and `stdlib/` are.
    pub root: PathBuf,
    pub script: PathBuf,
    /// What stood after the script's name.
    pub flags: Vec<String>,
    /// Where work runs that no machine is named for: here.
    pub session: Arc<dyn Session>,
    pub watch: Arc<dyn Watch>,
    /// The machines that this run has.
    pub fleet: Fleet,
    failed: AtomicBool,
}

impl Context {
    pub fn new(root: PathBuf, script: PathBuf, flags: Vec<String>, watch: Arc<dyn Watch>) -> Self {
        let fleet = Fleet::new(root.join("results"));
        let session = Arc::new(Local::default());
        Self { root, script, flags, session, watch, fleet, failed: AtomicBool::new(false) }
    }

    /// Something to report to, for work of this thread.
    pub fn progress(&self) -> Arc<dyn Progress> {
        super::logs::logged(self.watch.progress())
    }

    /// One line for the user that is not data, and for the log of this thread.
    pub fn line(&self, text: &str) {
        super::logs::line(text);
        self.watch.line(text);
    }

    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// The run goes on, but will not end with exit code 0.
    pub fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
