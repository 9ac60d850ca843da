//! All machines of one run: they are obtained here, and none is left when the run ends.
//!
//! A machine goes down through the files of this folder once, when it is provisioned, and back
//! once, when it is ended: `recovery` may take one over, `budget` limits what it costs,
//! `connection` rents it and connects to it, and `registry` holds it until `Fleet::end`.

mod budget;
mod connection;
mod ending;
mod recovery;
mod registry;

pub use ending::Ending;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::lent::{Lent, Terms};
use super::own;
use super::provision::Provision;
use crate::error::{Error, Result};
use crate::gpu::ledger::{Entry, Ledger, Stage, now};
use crate::gpu::{self, ProviderKind, rent};
use crate::progress::Progress;
use crate::threads;
use budget::Budget;
use connection::{Run, reconnect};
use registry::Registry;

pub struct Fleet {
    run: Run,
    registry: Registry,
    budget: Budget,
}

impl Fleet {
    /// The machines of a run whose project has its results in `results`.
    pub fn new(results: PathBuf) -> Self {
        Self { run: Run::new(results), registry: Registry::default(), budget: Budget::default() }
    }

    /// Limits the cost in USD of all machines of this run. Each gets the remaining amount when it
    /// is requested, and ends itself when that is spent.
    pub fn limit_cost(&self, most: f64) {
        self.budget.limit(most);
    }

    pub fn ledger(&self) -> Result<Ledger> {
        self.run.ledger()
    }

    /// A machine as requested, with a worker.
    pub fn provision(&self, asked: &Provision, progress: &dyn Progress) -> Result<Arc<Lent>> {
        let lent = match asked.provider {
            ProviderKind::Ssh => own::provision(asked, &self.run.name, &self.run.ledger_file(), progress)?,
            ProviderKind::Slurm | ProviderKind::RunPod => self.rented(asked, progress)?,
        };
        self.registry.add(lent.clone());
        Ok(lent)
    }

    fn rented(&self, asked: &Provision, progress: &dyn Progress) -> Result<Arc<Lent>> {
        let provider = gpu::provider(&asked.provider_id()?)?;
        let ledger = self.ledger()?;
        self.registry.first_use(&provider, || recovery::reap_useless(&*provider, &ledger, progress));
        if let Some(lent) = recovery::take_over(&self.run, asked, &*provider, &ledger, progress)? {
            return Ok(lent);
        }
        let want = self.budget.within(&asked.want, &self.run.name, &ledger, &self.registry.machines())?;
        self.run.rent(asked, &want, &*provider, &ledger, progress)
    }

    /// Connects to a running machine by id or name. This run does not terminate it.
    pub fn attach(&self, id: &str, terms: &Terms, progress: &dyn Progress) -> Result<Arc<Lent>> {
        let ledger = self.ledger()?;
        let unknown = || Error::of(Failure::UnknownMachine(id.to_string()));
        let entry = ledger.called(id)?.filter(|entry| entry.stage != Stage::Closed).ok_or_else(unknown)?;
        if entry.stage != Stage::Ready {
            return Err(Error::of(Failure::NotReady { id: id.to_string(), stage: entry.stage.name() }));
        }
        let provider = gpu::provider(&entry.provider)?;
        // `reap` skips it from now on.
        ledger.keep(&entry.name)?;
        let entry = Entry { keep_running: true, ..entry };
        // A running worker has its own time limit.
        let left = entry.ends_at().map(|time| Duration::from_secs_f64((time - now()).max(1.0)));
        let terms = Terms { lifetime: left.unwrap_or(terms.lifetime), ..terms.clone() };
        let lent = reconnect(&entry, &*provider, &ledger, &terms, None, progress)?;
        self.registry.add(lent.clone());
        if entry.tenure().is_listed() {
            self.registry.first_use(&provider, || ());
        }
        Ok(lent)
    }

    /// Forgets the machines of this run.
    pub fn forget(&self) {
        self.registry.forget();
    }

    /// Leaves every machine of this run running. Returns a description of each, with its cost and
    /// the time it stays.
    pub fn leave(&self) -> Vec<String> {
        let machines = self.registry.machines();
        // What no provider lists is reported here, and not again by `finish`.
        self.registry.forget_unlisted();
        let there = machines.iter().filter(|lent| !lent.has_ended());
        there
            .map(|lent| match self.ledger().and_then(|ledger| ledger.keep(&lent.label.name)) {
                Ok(()) => lent.left_running(),
                Err(error) => format!("{}: {}", lent.label.id, error.message),
            })
            .collect()
    }

    /// Terminates the machines that dead runs left running on `task`, because it is done.
    pub fn give_back(&self, task: &str) -> Result<()> {
        match self.run.ledger_file().exists() {
            true => recovery::give_back(&self.ledger()?, task),
            false => Ok(()),
        }
    }

    /// Terminates one machine. On a user's own machine only the worker ends.
    pub fn end(&self, lent: &Lent) -> Result<()> {
        let mut ended = lent.ended.lock().expect("no panic under this lock");
        if *ended {
            return Ok(());
        }
        let told = lent.end_worker();
        let name = &lent.label.name;
        if !lent.label.tenure().is_listed() {
            // A machine that cannot be reached ends itself, and its row stays until it is checked.
            let _ = self.ledger().and_then(|ledger| if told { ledger.closed(name) } else { ledger.ending(name) });
        } else if let Some(provider) = self.registry.provider(&lent.label.provider) {
            rent::end(&*provider, &self.ledger()?, &provider.patience(), name)?;
        }
        *ended = true;
        Ok(())
    }

    /// Terminates all machines that are not to be kept, then asks the providers what is alive.
    pub fn finish(&self) -> Ending {
        let mut ending = Ending::default();
        let machines = self.registry.machines();
        let failures = std::thread::scope(|scope| {
            let given_back = || machines.iter().filter(|lent| !lent.label.keep_running);
            let ends: Vec<_> = given_back().map(|lent| threads::start_in(scope, move || self.end(lent))).collect();
            let ended = given_back().zip(ends).map(|(lent, end)| match end {
                Ok(end) => end.join().expect("no panic in ending"),
                // If no thread can be started, it is done here.
                Err(_) => self.end(lent),
            });
            ended.filter_map(Result::err).collect::<Vec<_>>()
        });
        ending.leaked = !failures.is_empty();
        ending.lines.extend(failures.into_iter().map(|error| error.message));
        let kept = machines.iter().filter(|lent| lent.label.keep_running && !lent.has_ended());
        let unlisted = kept.filter(|lent| !lent.label.tenure().is_listed());
        ending.lines.extend(unlisted.map(|lent| lent.left_running()));
        for provider in self.registry.providers() {
            match self.ledger() {
                Ok(ledger) => ending.add(&*provider, &ledger, &self.run.name),
                Err(error) => {
                    ending.leaked = true;
                    ending.lines.push(error.message);
                }
            }
        }
        ending
    }
}
