//! The checkpoints of an extraction on another machine: those of earlier runs are sent before it
//! begins, and each that it writes is fetched, so that another machine can continue if this one is
//! lost.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::project_folder::ProjectFolder;
use super::request::Extract;
use super::watched::GiveUp;
use crate::engine;
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress, Silent};
use crate::record::Activations;
use crate::remote::{self, quoted};
use crate::results::sealed;
use crate::threads;

/// The suffix of a received checkpoint until it is moved to its place.
const ARRIVING: &str = ".arriving";
/// Time that a checkpoint in transfer has to arrive after the end of its call.
const LAST_CHECKPOINT: Duration = Duration::from_secs(30);
/// Nothing panics while it holds one of the locks of a call.
const UNHARMED: &str = "no panic under this lock";

/// The checkpoints of one extraction, here and on a machine.
pub(super) struct Checkpoints<'a> {
    pub there: &'a ProjectFolder,
    /// The requested file, relative to the project.
    pub asked: &'a str,
    /// The largest size of a checkpoint in bytes. None if the model is unknown: nothing is fetched.
    pub most: Option<u64>,
    pub give_up: &'a GiveUp<'a>,
}

impl Checkpoints<'_> {
    /// Sends the checkpoints of earlier runs of `work`, unless the machine has its own.
    pub(super) fn send(&self, work: &Extract, progress: &dyn Progress) -> Result<()> {
        let asked = self.asked;
        // An invalid checkpoint is reported before anything is done.
        sealed::Reader::open(Path::new(asked)).map(drop).or_else(|error| match error.kind {
            Kind::BadArgument => Err(error),
            _ => Ok(()),
        })?;
        let machine = self.there.within(0, self.give_up);
        let holds = |condition: String| remote::finish(&machine, &condition).map(|said| said.code == 0);
        for here in engine::checkpoints(asked) {
            let header = sealed::header_of(Path::new(&here)).filter(|header| work.may_continue(header));
            let Some(mark) = header.as_ref().and_then(|header| header["mark"].as_str()) else { continue };
            let own = format!("{asked}.{mark}");
            if !engine::is_checkpoint_of(asked, &own) {
                continue;
            }
            let places = [asked, own.as_str()].map(|name| quoted(&self.there.path(name)));
            // The fingerprint is in the first bytes of a checkpoint.
            let has =
                places.iter().map(|place| format!("head -c 128 {place} 2>/dev/null | tr -cd a-z0-9 | grep -q {mark}"));
            if holds(has.collect::<Vec<_>>().join(" || "))? {
                continue;
            }
            let place = if holds(format!("test -e {}", places[0]))? { own.as_str() } else { asked };
            remote::upload(&machine, Path::new(&here), &self.there.path(place), progress)?;
        }
        Ok(())
    }

    /// Runs `call`, which gets the progress of its events, and fetches checkpoints meanwhile.
    pub(super) fn fetched_during(
        &self,
        progress: &dyn Progress,
        call: impl FnOnce(&dyn Progress) -> Result<Activations>,
    ) -> Result<Activations> {
        let (fetching, over, latest) = (AtomicBool::new(false), Mutex::new(None), Mutex::new(None));
        let outcome = std::thread::scope(|scope| {
            let courier =
                Courier { checkpoints: self, progress, fetching: &fetching, over: &over, latest: &latest, scope };
            let outcome = call(&courier);
            // After success the last checkpoint is fetched below.
            let grace = if outcome.is_ok() { Duration::ZERO } else { LAST_CHECKPOINT };
            *over.lock().expect(UNHARMED) = Some(Instant::now() + grace);
            outcome
        });
        // The record then exists twice: in memory, and where the next run finds it if this one
        // fails to save it.
        if let (Ok(_), Some(name)) = (&outcome, latest.into_inner().expect(UNHARMED))
            && self.receive(&name, self.give_up).is_ok()
        {
            let removal = format!("rm -f -- {}", quoted(&self.there.path(&name)));
            let _ = remote::finish(&self.there.within(0, self.give_up), &removal);
        }
        outcome
    }

    /// Fetches the checkpoint called `name` there to its place here.
    ///
    /// # Errors
    /// Also if the size of a checkpoint is not known.
    fn receive<'a>(&self, name: &str, give_up: &'a GiveUp<'a>) -> Result<()> {
        let most = self.most.ok_or_else(|| Error::of(Failure::ModelUnknown))?;
        let arriving = format!("{}{ARRIVING}", self.asked);
        let machine = self.there.within(most, give_up);
        remote::download(&machine, &self.there.path(name), Path::new(&arriving), true, &Silent)?;
        engine::place_checkpoint(Path::new(&arriving), self.asked)
    }
}

/// Passes events on, and fetches the checkpoints that they name.
struct Courier<'scope, 'env> {
    checkpoints: &'env Checkpoints<'env>,
    progress: &'env dyn Progress,
    /// True while a fetch is running.
    fetching: &'env AtomicBool,
    /// When to stop fetching after the end of the call.
    over: &'env Mutex<Option<Instant>>,
    /// Name of the latest checkpoint.
    latest: &'env Mutex<Option<String>>,
    scope: &'scope Scope<'scope, 'env>,
}

impl Progress for Courier<'_, '_> {
    fn event(&self, event: Event) {
        if let Event::Checkpoint { path, .. } = &event {
            *self.latest.lock().expect(UNHARMED) = Some(path.clone());
            if !self.fetching.swap(true, Ordering::Relaxed) {
                let (checkpoints, fetching, over, name) = (self.checkpoints, self.fetching, self.over, path.clone());
                // If no thread can be started, it is not fetched.
                let started = threads::start_in(self.scope, move || {
                    // A checkpoint that is replaced during the transfer is discarded. The next one
                    // may arrive.
                    let until = || *over.lock().expect(UNHARMED);
                    let give_up = || until().filter(|until| Instant::now() > *until).map(|_| Error::interrupted());
                    let _ = checkpoints.receive(&name, &give_up);
                    fetching.store(false, Ordering::Relaxed);
                });
                if started.is_err() {
                    self.fetching.store(false, Ordering::Relaxed);
                }
            }
        }
        self.progress.event(event);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted()
    }
}
