//! All machines of one run: they are obtained here, and none is left when the run ends.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::label::{Label, OWN};
use super::lent::{Lent, Terms, lend};
use super::own;
use super::provision::Provision;
use crate::error::{Error, Kind, Result};
use crate::gpu::ledger::{Entry, Ledger, Purpose, Stage, now};
use crate::gpu::rent::{self, Reap, Renting};
use crate::gpu::{self, Patience, Provider, Want, slurm};
use crate::progress::{Event, Progress};
use crate::remote::key_pair;
use crate::threads;
use crate::words::counted;

/// The name of the provider that submits jobs: here, or on the given login node.
fn cluster(asked: &Provision) -> Result<String> {
    asked.ssh.as_ref().map_or(Ok("slurm".to_string()), slurm::name_of)
}

pub struct Fleet {
    /// The project's `results/`.
    results: PathBuf,
    run: String,
    machines: Mutex<Vec<Arc<Lent>>>,
    /// Providers that this run has asked for machines.
    used: Mutex<Vec<Arc<dyn Provider>>>,
    /// The most that all machines of this run may cost together, in USD.
    cap: Mutex<Option<f64>>,
    /// Held while the run's key pair is created.
    key: Mutex<()>,
}

/// The state at the end of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ending {
    pub lines: Vec<String>,
    /// True if a machine is, or may be, alive that should not be.
    pub leaked: bool,
}

impl Fleet {
    pub fn new(results: PathBuf) -> Self {
        let run = format!("{:08x}", rand::random::<u32>());
        Self {
            results,
            run,
            machines: Mutex::default(),
            used: Mutex::default(),
            cap: Mutex::default(),
            key: Mutex::default(),
        }
    }

    /// Limits the cost in USD of all machines of this run. Each gets the remaining amount when it
    /// is requested, and ends itself when that is spent.
    pub fn limit_cost(&self, most: f64) {
        *self.cap.lock().expect("no panic under this lock") = Some(most);
    }

    /// The remaining amount: the limit less the cost of past machines and the possible cost of
    /// running ones.
    fn left(&self, ledger: &Ledger) -> Result<Option<f64>> {
        let Some(cap) = *self.cap.lock().expect("no panic under this lock") else { return Ok(None) };
        let machines = self.machines.lock().expect("no panic under this lock");
        let alive = |entry: &&Entry| machines.iter().find(|lent| lent.label.name == entry.name && !lent.has_ended());
        let entries = ledger.all()?.into_iter().filter(|entry| entry.run == self.run);
        let promised = |entry: Entry| alive(&&entry).map_or(entry.cost_so_far(), |lent| lent.most());
        Ok(Some(cap - entries.map(promised).sum::<f64>()))
    }

    pub fn ledger(&self) -> Result<Ledger> {
        Ledger::open(&self.ledger_file())
    }

    fn ledger_file(&self) -> PathBuf {
        self.results.join("gpus.sqlite")
    }

    /// A machine as requested, with a worker.
    pub fn provision(&self, asked: &Provision, progress: &dyn Progress) -> Result<Arc<Lent>> {
        let lent = match asked.provider.as_str() {
            "ssh" => own::provision(asked, &self.run, &self.ledger_file(), progress)?,
            "slurm" => self.rented(asked, gpu::provider(&cluster(asked)?)?, progress)?,
            name => self.rented(asked, gpu::provider(name)?, progress)?,
        };
        self.machines.lock().expect("no panic under this lock").push(lent.clone());
        Ok(lent)
    }

    fn rented(&self, asked: &Provision, provider: Arc<dyn Provider>, progress: &dyn Progress) -> Result<Arc<Lent>> {
        let ledger = self.ledger()?;
        let patience = provider.patience();
        self.first_use(&provider, &ledger, &patience, progress);
        if let Some(lent) = self.taken_over(asked, &*provider, &ledger, progress)? {
            return Ok(lent);
        }
        let mut want = asked.want.clone();
        if let Some(left) = self.left(&ledger)? {
            want.max_cost = Some(want.max_cost.map_or(left, |cap| cap.min(left)));
        }
        let key_file = self.results.join(".keys").join(&self.run);
        let public_key = {
            // There is one key pair per run, created by the first thread.
            let _first = self.key.lock().expect("no panic under this lock");
            key_pair(&key_file)?
        };
        let (run, task, keep_running) = (self.run.clone(), asked.task.clone(), asked.keep_running);
        let purpose = Purpose { run, task, key_file, keep_running };
        let renting = Renting {
            provider: &*provider,
            ledger: &ledger,
            patience: &patience,
            purpose: &purpose,
            public_key: &public_key,
            progress,
        };
        let rented = renting.rent(&want)?;
        let label = Label {
            name: rented.name.clone(),
            id: rented.id,
            provider: provider.name().to_string(),
            gpu: rented.offer.gpu,
            price: rented.price,
            max_cost: want.max_cost,
            keep_running: asked.keep_running,
            since: rented.since,
        };
        let give_back = |worker: &str| Ok(provider.give_back_command(worker));
        match lend(label, rented.reached.machine, &asked.terms, give_back, progress) {
            Ok(lent) => Ok(Arc::new(lent)),
            Err(error) => {
                rent::end(&*provider, &ledger, &patience, &rented.name)?;
                Err(error)
            }
        }
    }

    /// A machine that a dead run left running on the same task.
    fn taken_over(
        &self,
        asked: &Provision,
        provider: &dyn Provider,
        ledger: &Ledger,
        progress: &dyn Progress,
    ) -> Result<Option<Arc<Lent>>> {
        let Some(task) = &asked.task else { return Ok(None) };
        for entry in ledger.left_over(provider.name(), task)? {
            if !ledger.take_over(&entry, &self.run)? {
                continue;
            }
            match self.again(asked, &entry, provider, progress) {
                Ok(lent) => {
                    let text = format!("{}: taken over from a run that died, with what it was doing", lent.label.id);
                    progress.event(Event::Warning(text));
                    return Ok(Some(lent));
                }
                Err(error) => {
                    let text = format!("{} cannot be taken over: {}", entry.name, error.message);
                    progress.event(Event::Warning(text));
                    rent::end(provider, ledger, &provider.patience(), &entry.name)?;
                }
            }
        }
        Ok(None)
    }

    /// Connects to a running machine by id or name. This run does not terminate it.
    pub fn attach(&self, id: &str, terms: &Terms, progress: &dyn Progress) -> Result<Arc<Lent>> {
        let ledger = self.ledger()?;
        let unknown = || {
            Error::not_found(format!("this project has no machine \"{id}\"")).hint("`outlier gpus` lists its machines")
        };
        let entry = ledger.called(id)?.filter(|entry| entry.stage != Stage::Closed).ok_or_else(unknown)?;
        if entry.stage != Stage::Ready {
            let message = format!("{id} cannot be attached to: it is {}", entry.stage.name());
            return Err(Error::new(Kind::Lost, message).hint("`outlier gpus` tells how far it is"));
        }
        let provider = gpu::provider(&entry.provider)?;
        // `reap` skips it from now on.
        ledger.keep(&entry.name)?;
        let entry = Entry { keep_running: true, ..entry };
        let (want, keep_running) = (Want::default(), true);
        // A running worker has its own time limit.
        let left =
            entry.until.filter(|_| entry.is_own()).map(|until| Duration::from_secs_f64((until - now()).max(1.0)));
        let terms = Terms { lifetime: left.unwrap_or(terms.lifetime), ..terms.clone() };
        let asked = Provision {
            provider: entry.provider.clone(),
            want,
            ssh: None,
            terms,
            keep_running,
            task: None,
            room: None,
        };
        let lent = self.again(&asked, &entry, &*provider, progress)?;
        self.machines.lock().expect("no panic under this lock").push(lent.clone());
        let mut used = self.used.lock().expect("no panic under this lock");
        if !entry.is_own() && used.iter().all(|known| known.name() != provider.name()) {
            used.push(provider);
        }
        Ok(lent)
    }

    /// Forgets the machines of this run.
    pub fn forget(&self) {
        self.machines.lock().expect("no panic under this lock").clear();
        self.used.lock().expect("no panic under this lock").clear();
    }

    /// Leaves every machine of this run running. Returns a description of each, with its cost and
    /// the time it stays.
    pub fn leave(&self) -> Vec<String> {
        let machines = self.machines.lock().expect("no panic under this lock").clone();
        // The user's own machines are reported once.
        self.machines.lock().expect("no panic under this lock").retain(|lent| !lent.label.is_own());
        let there = machines.iter().filter(|lent| !lent.has_ended());
        there
            .map(|lent| {
                let label = &lent.label;
                if let Err(error) = self.ledger().and_then(|ledger| ledger.keep(&label.name)) {
                    return format!("{}: {}", label.id, error.message);
                }
                if label.is_own() {
                    return lent.left_at_work();
                }
                format!(
                    "{} ({}) is left running: ${:.2}/h, ${:.2} so far; {}; `outlier repl --attach {}` takes it up again, \
                     `outlier gpus terminate {}` ends it",
                    label.id, label.gpu, label.price, lent.cost(), lent.stays(), label.id, label.id
                )
            })
            .collect()
    }

    /// Reconnects to a machine that was ready before.
    fn again(
        &self,
        asked: &Provision,
        entry: &Entry,
        provider: &dyn Provider,
        progress: &dyn Progress,
    ) -> Result<Arc<Lent>> {
        let gone = || Error::new(Kind::Lost, "it does not run any more");
        let id = entry.id.clone().ok_or_else(gone)?;
        let key = entry.key_file.clone().unwrap_or_default();
        let described = provider.describe(entry.known_as().unwrap_or(&id))?;
        if described.is_none() && entry.is_own() {
            self.ledger()?.closed(&entry.name)?;
            let message = format!("{}: its worker {} does not run any more", id, entry.name);
            return Err(
                Error::new(Kind::Lost, message).hint("its time was over, or somebody ended it: provision it again")
            );
        }
        let described = described.filter(|machine| machine.state == gpu::State::Running).ok_or_else(gone)?;
        let machine = match &entry.ssh {
            Some(address) => provider.again(address, &key, &entry.fingerprints)?,
            None => provider.reach(&described, &key)?.ok_or_else(gone)?.machine,
        };
        let label = Label {
            name: entry.name.clone(),
            id,
            provider: if entry.is_own() { OWN.to_string() } else { provider.name().to_string() },
            gpu: entry.gpu.clone(),
            price: entry.price,
            max_cost: asked.want.max_cost,
            keep_running: entry.keep_running,
            since: entry.since,
        };
        let give_back = |worker: &str| Ok(provider.give_back_command(worker));
        lend(label, machine, &asked.terms, give_back, progress).map(Arc::new)
    }

    /// Before a run requests its first machine from a provider, it terminates those of dead runs.
    fn first_use(&self, provider: &Arc<dyn Provider>, ledger: &Ledger, patience: &Patience, progress: &dyn Progress) {
        let mut used = self.used.lock().expect("no panic under this lock");
        if used.iter().any(|known| known.name() == provider.name()) {
            return;
        }
        match rent::reap(&**provider, ledger, patience, Reap::Useless) {
            Ok(lines) => lines.into_iter().for_each(|line| progress.event(Event::Warning(line))),
            Err(error) => progress.event(Event::Warning(format!("looking for leftovers: {}", error.message))),
        }
        used.push(provider.clone());
    }

    /// Terminates the machines that dead runs left running on `task`, because it is done.
    pub fn give_back(&self, task: &str) -> Result<()> {
        if !self.ledger_file().exists() {
            return Ok(());
        }
        let ledger = self.ledger()?;
        for name in gpu::names(&ledger.open_entries()?) {
            for entry in ledger.left_over(&name, task)? {
                let provider = gpu::provider(&name)?;
                match rent::end(&*provider, &ledger, &provider.patience(), &entry.name) {
                    // A user's own machine may be switched off and costs nothing. Its row stays.
                    Err(_) if entry.is_own() => (),
                    ended => ended?,
                }
            }
        }
        Ok(())
    }

    /// Terminates one machine. On a user's own machine only the worker ends.
    pub fn end(&self, lent: &Lent) -> Result<()> {
        let mut ended = lent.ended.lock().expect("no panic under this lock");
        if *ended {
            return Ok(());
        }
        let told = lent.end_worker();
        if lent.label.is_own() {
            // A machine that cannot be reached ends itself, and its row stays until it is checked.
            let ledger = self.ledger();
            let _ =
                ledger.and_then(
                    |ledger| {
                        if told { ledger.closed(&lent.label.name) } else { ledger.ending(&lent.label.name) }
                    },
                );
            *ended = true;
            return Ok(());
        }
        let used = self.used.lock().expect("no panic under this lock").clone();
        if let Some(provider) = used.iter().find(|provider| provider.name() == lent.label.provider) {
            rent::end(&**provider, &self.ledger()?, &provider.patience(), &lent.label.name)?;
        }
        *ended = true;
        Ok(())
    }

    /// Terminates all machines that are not to be kept, then asks the providers what is alive.
    pub fn finish(&self) -> Ending {
        let mut ending = Ending::default();
        let machines = self.machines.lock().expect("no panic under this lock").clone();
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
        let kept = machines.iter().filter(|lent| lent.label.is_own() && lent.label.keep_running && !lent.has_ended());
        ending.lines.extend(kept.map(|lent| lent.left_at_work()));
        let used = self.used.lock().expect("no panic under this lock").clone();
        for provider in used {
            let reaped =
                self.ledger().and_then(|ledger| rent::reap(&*provider, &ledger, &provider.patience(), Reap::All));
            match reaped {
                Ok(lines) => ending.lines.extend(lines),
                Err(error) => ending.lines.push(format!("looking for leftovers: {}", error.message)),
            }
            self.look(&*provider, &mut ending);
        }
        ending
    }

    fn look(&self, provider: &dyn Provider, ending: &mut Ending) {
        // The login follows.
        let name = provider.name().split(';').next().unwrap_or_default();
        let ledger = match self.ledger() {
            Ok(ledger) => ledger,
            Err(error) => {
                ending.leaked = true;
                return ending.lines.push(error.message);
            }
        };
        let mine = match rent::alive(provider, &ledger) {
            Ok(alive) => alive
                .into_iter()
                .filter(|alive| alive.entry.as_ref().is_some_and(|entry| entry.run == self.run))
                .collect::<Vec<_>>(),
            Err(error) => {
                // If no machine was ever created, none can be alive.
                let open = ledger.open_entries();
                if open.is_ok_and(|open| open.iter().all(|entry| entry.run != self.run)) {
                    return;
                }
                ending.leaked = true;
                ending.lines.push(format!("{name}: what is alive could not be verified: {}", error.message));
                return;
            }
        };
        let cost = ledger.cost_of_run(&self.run).unwrap_or(0.0);
        ending.lines.push(format!(
            "{name}: {} of this run alive, by its own listing; cost ${cost:.2}",
            counted(mine.len(), "machine")
        ));
        for alive in mine {
            let entry = alive.entry.expect("filtered");
            let (id, price) = (&alive.machine.id, alive.machine.price);
            if entry.keep_running {
                ending.lines.push(format!(
                    "  {id} ({}) is kept running and costs ${price:.2}/h: `outlier gpus terminate {id}` ends it",
                    entry.gpu
                ));
            } else {
                ending.leaked = true;
                ending.lines.push(format!("  {id} ({}) is still alive and costs ${price:.2}/h", entry.gpu));
            }
        }
    }
}
