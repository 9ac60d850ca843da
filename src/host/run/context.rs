//! The shared state of a script's run: location, flags, output, machines, failures.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::imports;
use super::stage::{Play, Stage};
use super::thread_log;
use super::unsaved::Unsaved;
use crate::error::Result;
use crate::host::language::bounds::Bounds;
use crate::host::language::usage::Used;
use crate::progress::Progress;
use crate::record::Activations;
use crate::session::{Fleet, Local, Planned, Session};
use crate::terminal;

/// Creates the progress reports of long operations.
pub trait Watch: Send + Sync {
    fn progress(&self) -> Arc<dyn Progress>;

    /// Prints a line for the user that is not data.
    fn line(&self, text: &str);
}

pub struct Context {
    /// The project, with `results/` and `logs/`.
    pub root: PathBuf,
    /// The folder that contains `stdlib/`.
    pub library: PathBuf,
    pub script: PathBuf,
    /// The arguments after the script's name.
    pub flags: Vec<String>,
    /// Where work without a named machine runs: here.
    pub session: Arc<dyn Session>,
    pub watch: Arc<dyn Watch>,
    /// The start of this run.
    pub began: SystemTime,
    /// The machines of this run.
    pub fleet: Fleet,
    pub bounds: Bounds,
    /// The usage of its limits.
    pub used: Arc<Used>,
    /// In a plan or a test, the simulation that records effects.
    pub stage: Option<Arc<Stage>>,
    /// Every extraction of this run, without its folds.
    pub measured: Mutex<Vec<Activations>>,
    /// Passes whose records are not saved yet.
    pub(crate) unsaved: Unsaved,
    failed: AtomicBool,
    /// The exit code that the script has set.
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

    /// The same for a dry run: effects are recorded and not performed.
    pub fn planned(self) -> Result<Self> {
        let here = Arc::new(Planned::new()?);
        let stage = Arc::new(Stage::new(Play::Plan { here: here.clone() }));
        Ok(Self { session: here, stage: Some(stage), ..self })
    }

    /// The same for a test: results go below `root`, this machine simulates others, and time is a
    /// number.
    pub fn played(self, root: PathBuf) -> Self {
        let stage = Arc::new(Stage::new(Play::Test));
        Self { fleet: Fleet::new(root.join("results")), root, stage: Some(stage), ..self }
    }

    /// A progress report for work of this thread.
    pub fn progress(&self) -> Arc<dyn Progress> {
        thread_log::logged(self.watch.progress())
    }

    /// Prints a line for the user that is not data, and logs it for this thread.
    pub fn line(&self, text: &str) {
        thread_log::line(text);
        match &self.stage {
            Some(stage) => stage.said(text),
            None => self.watch.line(text),
        }
    }

    /// Prints data for the user.
    pub fn data(&self, text: &str) {
        match &self.stage {
            Some(stage) => stage.said(text),
            None => terminal::line(text),
        }
    }

    /// Prints data of the script.
    pub fn prints(&self, text: &str) {
        self.acts("print");
        self.data(text);
    }

    /// Reports once, at the first `deed`, that the module that is being imported has side effects.
    pub fn acts(&self, deed: &str) {
        let Some(told) = imports::first_deed(deed) else { return };
        match self.plan() {
            Some(stage) => stage.note(told),
            None => self.line(&format!("note: {told}")),
        }
    }

    /// In a dry run, the plan that records effects.
    pub fn plan(&self) -> Option<&Stage> {
        self.stage.as_deref().filter(|stage| stage.is_plan())
    }

    /// The failure that a test has set up for this primitive, if there is one.
    pub fn may_fail(&self, primitive: &str) -> Result<()> {
        self.stage.as_ref().map_or(Ok(()), |stage| stage.may_fail(primitive))
    }

    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// The run continues, but its exit code will not be 0.
    pub fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Sets the exit code of a successful run.
    pub fn ends_with(&self, code: u8) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// The exit code of the script, 0 by default.
    pub fn code(&self) -> u8 {
        self.code.load(Ordering::Relaxed)
    }

    /// Discards data that was kept in case of a failure.
    pub fn ended_well(&self) {
        self.unsaved.forget();
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
