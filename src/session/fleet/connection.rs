//! A machine from its provider to a connected worker: a new one, or one that was ready before.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::gpu::ledger::{Entry, Ledger, Purpose};
use crate::gpu::rent::{self, Renting};
use crate::gpu::{Provider, State, Want};
use crate::progress::Progress;
use crate::remote::key_pair;
use crate::session::failure::Failure;
use crate::session::label::Label;
use crate::session::lent::{Lent, Terms, lend};
use crate::session::provision::Provision;

/// The run that machines are for.
pub(super) struct Run {
    /// The project's `results/`.
    results: PathBuf,
    pub name: String,
    /// Held while the run's key pair is created.
    key: Mutex<()>,
}

impl Run {
    pub(super) fn new(results: PathBuf) -> Self {
        Self { results, name: format!("{:08x}", rand::random::<u32>()), key: Mutex::default() }
    }

    pub(super) fn ledger_file(&self) -> PathBuf {
        self.results.join("gpus.sqlite")
    }

    pub(super) fn ledger(&self) -> Result<Ledger> {
        Ledger::open(&self.ledger_file())
    }

    /// Rents a machine that meets the requirements `want`, and connects to it. If that fails, no
    /// machine is left.
    pub(super) fn rent(
        &self,
        asked: &Provision,
        want: &Want,
        provider: &dyn Provider,
        ledger: &Ledger,
        progress: &dyn Progress,
    ) -> Result<Arc<Lent>> {
        let key_file = self.results.join(".keys").join(&self.name);
        let public_key = {
            // There is one key pair per run, created by the first thread.
            let _first = self.key.lock().expect("no panic under this lock");
            key_pair(&key_file)?
        };
        let (run, task, keep_running) = (self.name.clone(), asked.task.clone(), asked.keep_running);
        let purpose = Purpose { run, task, key_file, keep_running };
        let patience = &provider.patience();
        let renting = Renting { provider, ledger, patience, purpose: &purpose, public_key: &public_key, progress };
        let rented = renting.rent(want)?;
        let label = Label {
            name: rented.name.clone(),
            id: rented.id,
            provider: provider.id().clone(),
            gpu: rented.offer.gpu,
            price: rented.price,
            max_cost: want.max_cost,
            keep_running,
            since: rented.since,
        };
        let give_back = |worker: &str| Ok(provider.give_back_command(worker));
        match lend(label, rented.reached.machine, &asked.terms, give_back, progress) {
            Ok(lent) => Ok(Arc::new(lent)),
            Err(error) => {
                rent::end(provider, ledger, patience, &rented.name)?;
                Err(error)
            }
        }
    }
}

/// Connects to a machine that was ready before. It may cost `max_cost` USD in total.
pub(super) fn reconnect(
    entry: &Entry,
    provider: &dyn Provider,
    ledger: &Ledger,
    terms: &Terms,
    max_cost: Option<f64>,
    progress: &dyn Progress,
) -> Result<Arc<Lent>> {
    let gone = || Error::of(Failure::NotRunning);
    let id = entry.id.clone().ok_or_else(gone)?;
    let key = entry.key_file.clone().unwrap_or_default();
    let described = provider.describe(entry.known_as().unwrap_or(&id))?;
    if described.is_none() && entry.tenure().absence_is_final() {
        ledger.closed(&entry.name)?;
        return Err(Error::of(Failure::WorkerGone { id, worker: entry.name.clone() }));
    }
    let described = described.filter(|machine| machine.state == State::Running).ok_or_else(gone)?;
    let machine = match &entry.ssh {
        Some(address) => provider.again(address, &key, &entry.fingerprints)?,
        None => provider.reach(&described, &key)?.ok_or_else(gone)?.machine,
    };
    let label = Label {
        name: entry.name.clone(),
        id,
        provider: entry.provider.clone(),
        gpu: entry.gpu.clone(),
        price: entry.price,
        max_cost,
        keep_running: entry.keep_running,
        since: entry.since,
    };
    let give_back = |worker: &str| Ok(provider.give_back_command(worker));
    lend(label, machine, terms, give_back, progress).map(Arc::new)
}
