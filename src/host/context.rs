//! What one run of a script shares: where it runs, what was asked for, who watches, what has gone wrong.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::bounds::Bounds;
use super::stage::{Play, Stage};
use super::unsaved::Unsaved;
use super::usage::Used;
use super::{imports, thread_log};
use crate::error::Result;
use crate::progress::Progress;
use crate::record::Activations;
use crate::session::{Fleet, Local, Planned, Session};
use crate::terminal;

/// Gives every piece of long work something to report to.
pub trait Watch: Send + Sync {
    fn progress(&self) -> Arc<dyn Progress>;

    /// One line for the user that is not data.
    fn line(&self, text: &str);
}

pub struct Context {
    /// The project: where `results/` and `logs/` are.
    pub root: PathBuf,
    /// The folder whose `stdlib/` modules come from.
    pub library: PathBuf,
    pub script: PathBuf,
    /// What stood after the script's name.
    pub flags: Vec<String>,
    /// Where work runs that no machine is named for: here.
    pub session: Arc<dyn Session>,
    pub watch: Arc<dyn Watch>,
    /// When this run began.
    pub began: SystemTime,
    /// The machines that this run has.
    pub fleet: Fleet,
    pub bounds: Bounds,
    /// What of them is used up.
    pub used: Arc<Used>,
    /// Where effects go instead of the world, in a plan or a test.
    pub stage: Option<Arc<Stage>>,
    /// Every extraction of this run, without its folds.
    pub measured: Mutex<Vec<Activations>>,
    /// Passes whose records are not saved yet.
    pub(super) unsaved: Unsaved,
    failed: AtomicBool,
    /// What the script has ended itself with.
    code: AtomicU8,
}

impl Context {
    pub fn new(root: PathBuf, script: PathBuf, flags: Vec<String>, watch: Arc<dyn Watch>) -> Self {
        let fleet = Fleet::new(root.join("results"));
        Self {
            library: root.clone(),
            root,
            script,
            flags,
            session: Arc::new(Local::default()),
            watch,
            began: SystemTime::now(),
            fleet,
            bounds: Bounds::default(),
            used: Arc::default(),
            stage: None,
            measured: Mutex::default(),
            unsaved: Unsaved::default(),
            failed: AtomicBool::new(false),
            code: AtomicU8::new(0),
        }
    }

    /// The same, but nothing is done: what would be done is noted.
    pub fn planned(self) -> Result<Self> {
        let here = Arc::new(Planned::new()?);
        let stage = Arc::new(Stage::new(Play::Plan { here: here.clone() }));
        Ok(Self { session: here, stage: Some(stage), ..self })
    }

    /// The same, but results go below `root`, machines are played by this one, and time is a number.
    pub fn played(self, root: PathBuf) -> Self {
        let stage = Arc::new(Stage::new(Play::Test));
        Self { fleet: Fleet::new(root.join("results")), root, stage: Some(stage), ..self }
    }

    /// Something to report to, for work of this thread.
    pub fn progress(&self) -> Arc<dyn Progress> {
        thread_log::logged(self.watch.progress())
    }

    /// One line for the user that is not data, and for the log of this thread.
    pub fn line(&self, text: &str) {
        thread_log::line(text);
        match &self.stage {
            Some(stage) => stage.said(text),
            None => self.watch.line(text),
        }
    }

    /// Data for the user.
    pub fn data(&self, text: &str) {
        match &self.stage {
            Some(stage) => stage.said(text),
            None => terminal::line(text),
        }
    }

    /// Data that the script prints.
    pub fn prints(&self, text: &str) {
        self.acts("print");
        self.data(text);
    }

    /// Says of the module that is being imported, if one is, that its import does something: once, at the first `deed`.
    pub fn acts(&self, deed: &str) {
        let Some(told) = imports::first_deed(deed) else { return };
        match self.plan() {
            Some(stage) => stage.note(told),
            None => self.line(&format!("note: {told}")),
        }
    }

    /// Whether effects are noted instead of done.
    pub fn plan(&self) -> Option<&Stage> {
        self.stage.as_deref().filter(|stage| stage.is_plan())
    }

    /// A failure that a test has put in the way of this primitive.
    pub fn may_fail(&self, primitive: &str) -> Result<()> {
        self.stage.as_ref().map_or(Ok(()), |stage| stage.may_fail(primitive))
    }

    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// The run goes on, but will not end with exit code 0.
    pub fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The exit code that the script wants, where it ends well.
    pub fn ends_with(&self, code: u8) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// What the script has ended itself with, 0 where it has not.
    pub fn code(&self) -> u8 {
        self.code.load(Ordering::Relaxed)
    }

    /// Nobody wants what was kept in case that something fails.
    pub fn ended_well(&self) {
        self.unsaved.forget();
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
