//! A machine that this run uses: connected, with a worker, and terminated at the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::confined;
use super::deploy::{Deployed, deploy};
use super::label::Label;
use super::remote::{Link, status};
use super::watched::{GiveUp, Watched};
use super::{Op, Remote, Reply, Session};
use crate::engine;
use crate::error::{Error, Kind, Result};
use crate::gpu::ledger::now;
use crate::hub;
use crate::progress::{Event, Progress, Silent, interrupt_requested};
use crate::record::LoadArgs;
use crate::remote::{self, Machine, Rules, SyncReport, quoted};
use crate::results::sealed;
use crate::threads;

/// The time limits of a worker and of its calls.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The worker ends if no client renews it for this time. None: it stays.
    pub lease: Option<Duration>,
    /// The worker ends if a call makes no progress for this time.
    pub stall: Duration,
    /// The worker ends after this time in any case.
    pub lifetime: Duration,
    /// How long a call tries to reach a silent machine.
    pub patience: Duration,
}

/// The largest short answer in bytes, including a few hashes.
const SHORT: u64 = 1 << 20;
/// Hashing a large file takes long without visible progress.
const SHORTEST_STALL: Duration = Duration::from_secs(600);
/// A machine ends itself when its time is over. Waits for it last this much longer.
const OVERTIME: f64 = 120.0;
/// Nothing panics while it holds one of the locks of a call.
const UNHARMED: &str = "no panic under this lock";
/// The suffix of a received checkpoint until it is moved to its place.
const ARRIVING: &str = ".arriving";
/// Time that a checkpoint in transfer has to arrive after the end of its call.
const LAST_CHECKPOINT: Duration = Duration::from_secs(30);

pub struct Lent {
    pub label: Label,
    machine: Arc<dyn Machine>,
    /// The same for work of a script, which may be abandoned.
    watched: Watched<Box<GiveUp<'static>>>,
    remote: Remote,
    /// True if it is this computer.
    here: bool,
    /// How long a file transfer may stall.
    stall: Duration,
    /// The project's folder on the machine.
    root: String,
    /// The latest time of its end, in seconds since 1970.
    until: f64,
    /// Held while it is being ended; true once it has ended.
    pub(super) ended: Mutex<bool>,
    ending: AtomicBool,
}

/// Installs the program on the machine and connects to its worker. `give_back` gets the program's
/// path there, and returns the command that terminates the machine from inside.
pub(super) fn lend(
    label: Label,
    machine: Arc<dyn Machine>,
    terms: &Terms,
    give_back: impl FnOnce(&str) -> Result<Option<String>>,
    progress: &dyn Progress,
) -> Result<Lent> {
    let own = std::env::current_exe().map_err(|e| Error::io("finding this program", &e))?;
    let binary = std::env::var_os("OUTLIER_WORKER").filter(|path| !path.is_empty()).map_or(own, Into::into);
    let stall = terms.stall.max(SHORTEST_STALL);
    let give_up = || progress.interrupted().then(Error::interrupted);
    let watched = Watched::new(machine.clone(), SHORT, Some(stall), &give_up);
    let Deployed { path: program, here } = deploy(&watched, &binary, progress)?;
    let root = format!("~/.outlier/projects/{}", project_name());
    let folder = match machine.keeper() {
        Some(folder) => format!("{} --kept", quoted(&folder)),
        None => quoted(&format!("~/.outlier/w/{}", label.name)),
    };
    let mut attach = format!(
        "mkdir -p {0} && cd {0} && exec {1} worker attach --folder {folder} --stall {2} --lifetime {3}",
        quoted(&root),
        quoted(&program),
        terms.stall.as_secs_f64(),
        lifetime(&label, terms).as_secs_f64(),
    );
    if let Some(lease) = terms.lease {
        attach += &format!(" --lease {}", lease.as_secs_f64());
    }
    if label.is_own() {
        attach += " --tidy";
    }
    if let Some(command) = give_back(&quoted(&program))? {
        attach += &format!(" --on-end {}", quoted(&command));
    }
    let until = now() + lifetime(&label, terms).as_secs_f64();
    let link = Link { machine: machine.clone(), attach, hub_token: hub::own_token() };
    // The first answer shows whether the machine works, before it gets any secrets.
    let status = status(&link, &|| progress.interrupted())?;
    if let Some(no_gpu) = status.no_gpu {
        no_gpu.on(&label, &machine.name(), progress)?;
    }
    let remote = Remote::new(link, terms.patience, terms.lease)?;
    let (ended, ending) = (Mutex::new(false), AtomicBool::new(false));
    let (name, wanted) = (label.name.clone(), machine.clone());
    let give_up: Box<GiveUp<'static>> = Box::new(move || match interrupt_requested() {
        true => Some(Error::interrupted()),
        false => (now() > until + OVERTIME).then(|| Error::new(Kind::Lost, format!("{name}: its time is over"))),
    });
    // A script's own commands may take long and be silent.
    let watched = Watched::new(wanted, u64::MAX, None, give_up);
    Ok(Lent { label, machine, watched, remote, stall, here, root, until, ended, ending })
}

/// A machine ends itself before it costs more than it may.
fn lifetime(label: &Label, terms: &Terms) -> Duration {
    match label.max_cost {
        Some(cap) if label.price > 0.0 => {
            let paid_for = label.since + 3600.0 * cap / label.price - now();
            Duration::from_secs_f64(paid_for.max(1.0).min(terms.lifetime.as_secs_f64()))
        }
        _ => terms.lifetime,
    }
}

/// The project's name, from its folder's name and path.
pub(super) fn project_name() -> String {
    use sha2::Digest;
    let folder = std::env::current_dir().unwrap_or_default();
    let name: String = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(24)
        .collect();
    let hash = format!("{:x}", sha2::Sha256::digest(folder.display().to_string()));
    format!("{name}-{}", &hash[..8])
}

impl Lent {
    /// Cost in USD so far.
    pub fn cost(&self) -> f64 {
        (now() - self.label.since) / 3600.0 * self.label.price
    }

    /// The most that it may cost in total, in USD.
    pub(super) fn most(&self) -> f64 {
        (self.until - self.label.since) / 3600.0 * self.label.price
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// True if it is this computer, under any name or address.
    pub fn is_here(&self) -> bool {
        self.here
    }

    /// Its waits end on Ctrl-C, and when its time is over.
    pub fn machine(&self) -> Result<&dyn Machine> {
        self.usable()?;
        Ok(&self.watched)
    }

    /// The command, run in the project's folder there.
    pub fn in_project(&self, command: &str) -> String {
        format!("mkdir -p {0} && cd {0} && {command}", quoted(&self.root))
    }

    /// A path in the project's folder there.
    pub fn path(&self, path: &str) -> String {
        if path.starts_with('/') || path.starts_with("~/") { path.to_string() } else { format!("{}/{path}", self.root) }
    }

    /// Syncs the project `root`. On a machine that is this computer, `everywhere` says whether
    /// links there may lead anywhere. `replaces` says which files here may be replaced.
    pub fn sync(
        &self,
        root: &Path,
        paths: [&[String]; 2],
        everywhere: bool,
        replaces: &dyn Fn(&Path) -> bool,
        progress: &dyn Progress,
    ) -> Result<SyncReport> {
        let machine = self.machine()?;
        let there = |names: &[String]| match self.here && !everywhere {
            true => confined::check(machine, &self.root, "sync", names),
            false => Ok(()),
        };
        remote::sync(machine, root, &self.root, paths, &Rules { there: &there, replaces }, progress)
    }

    /// In words, how long it stays if nobody renews it.
    pub fn stays(&self) -> String {
        match self.remote.status().map(|status| status.lease) {
            Ok(Some(seconds)) => format!("it ends itself {:.0} min from now if nobody attaches to it", seconds / 60.0),
            Ok(None) if self.label.is_own() => {
                format!("it ends itself {:.1} h from now", (self.until - now()).max(0.0) / 3600.0)
            }
            Ok(None) => "it stays until it is terminated".to_string(),
            Err(error) => format!("it does not answer: {}", error.message),
        }
    }

    /// For a user's own machine: how long the worker stays, how to use it again and how to end it.
    pub(super) fn left_at_work(&self) -> String {
        let Label { id, name, .. } = &self.label;
        format!(
            "{id} is left at work as {name}; {}; `outlier repl --attach {name}` takes it up again, \
             `outlier gpus terminate {name}` ends it",
            self.stays()
        )
    }

    fn usable(&self) -> Result<()> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Lost, format!("{} has been given back", self.label.name))
                .hint("provision another one"));
        }
        Ok(())
    }

    fn over_budget(&self) -> Option<Error> {
        let cap = self.label.max_cost?;
        (self.cost() >= cap).then(|| {
            let message = format!("{} has cost ${:.2}, `max_cost` is ${cap:.2}", self.label.name, self.cost());
            Error::new(Kind::OverBudget, message)
                .hint("finished work is kept and a checkpoint where one was asked for: raise `max_cost` and run again")
        })
    }

    /// True if it should have ended itself by now.
    fn over_time(&self) -> bool {
        now() > self.until + OVERTIME
    }

    /// Marks an interruption that nobody here has requested.
    fn stopped(&self, error: Error) -> Error {
        if error.kind != Kind::Interrupted {
            return error;
        }
        let why = self.machine.ended().map_or_else(String::new, |why| format!(": {why}"));
        Error::new(Kind::Lost, format!("{}: its worker was told to stop{why}", self.machine.name()))
            .hint("its time was over, or somebody else ended it: run the script again, finished work is kept")
    }

    /// Ends the worker. The provider ends the machine. False if the worker has not confirmed it.
    pub(super) fn end_worker(&self) -> bool {
        self.ending.swap(true, Ordering::Relaxed) || self.remote.end()
    }
}

impl Session for Lent {
    fn call(&self, op: Op, progress: &dyn Progress) -> Result<Reply> {
        self.usable()?;
        if let Some(error) = self.over_budget() {
            return Err(error);
        }
        let checkpoint = op.checkpoint().map(str::to_string);
        if let Some(path) = &checkpoint {
            self.bring(&op, path, progress)?;
        }
        let most = op.checkpoint_bytes(self.remote.known(&op).as_ref());
        let sent = checkpoint.as_deref().zip(most);
        let (courier, over, told) = (AtomicBool::new(false), Mutex::new(None), Mutex::new(None));
        let mut outcome = std::thread::scope(|scope| {
            let watch =
                Watch { lent: self, progress, checkpoint: sent, courier: &courier, over: &over, told: &told, scope };
            let outcome = self.remote.call(op, &watch);
            // After success the last checkpoint is fetched below.
            let grace = if outcome.is_ok() { Duration::ZERO } else { LAST_CHECKPOINT };
            *over.lock().expect(UNHARMED) = Some(Instant::now() + grace);
            outcome
        });
        // The record then exists twice: in memory, and where the next run finds it if this one
        // fails to save it.
        if let (Ok(_), Some((asked, most)), Some(name)) = (&outcome, sent, told.into_inner().expect(UNHARMED)) {
            let give_up = || self.given_up(progress);
            if self.receive(&name, asked, most, &give_up).is_ok() {
                let _ = remote::finish(&self.within(0, &give_up), &format!("rm -f -- {}", quoted(&self.path(&name))));
            }
        }
        if let Ok(Reply::Activations(acts)) = &mut outcome {
            acts.measurements.machine = format!("{} {}", self.label.provider, self.label.gpu).trim().to_string();
            acts.measurements.machine_cost_usd = self.cost();
        }
        // A machine that ended itself when its money was spent looks lost.
        match outcome {
            Err(error) if matches!(error.kind, Kind::Lost | Kind::Interrupted) && !progress.interrupted() => {
                Err(self.over_budget().unwrap_or_else(|| self.stopped(error)))
            }
            other => other,
        }
    }

    fn loaded(&self) -> Result<Vec<LoadArgs>> {
        self.usable()?;
        self.remote.loaded()
    }

    fn fetch(&self, root: &Path, path: &str, most: u64, progress: &dyn Progress) -> Result<()> {
        self.usable()?;
        let give_up = || self.given_up(progress);
        remote::download(&self.within(most, &give_up), &self.path(path), &root.join(path), true, progress)
    }

    fn machine(&self) -> Option<&str> {
        Some(&self.label.id)
    }

    fn confined(&self, what: &str, path: &str) -> Result<()> {
        if !self.here {
            return Ok(());
        }
        remote::inside(what, path)?;
        confined::check(self.machine()?, &self.root, what, &[path.to_string()])
    }
}

impl Lent {
    /// Sends the checkpoints of earlier runs of this work, unless this machine has its own.
    fn bring(&self, op: &Op, asked: &str, progress: &dyn Progress) -> Result<()> {
        // An invalid checkpoint is reported before anything is done.
        sealed::Reader::open(Path::new(asked)).map(drop).or_else(|error| match error.kind {
            Kind::BadArgument => Err(error),
            _ => Ok(()),
        })?;
        let give_up = || self.given_up(progress);
        let machine = self.within(0, &give_up);
        let holds = |condition: String| remote::finish(&machine, &condition).map(|said| said.code == 0);
        for here in engine::checkpoints(asked) {
            let header = sealed::header_of(Path::new(&here)).filter(|header| op.may_continue(header));
            let Some(mark) = header.as_ref().and_then(|header| header["mark"].as_str()) else { continue };
            let own = format!("{asked}.{mark}");
            if !engine::is_checkpoint_of(asked, &own) {
                continue;
            }
            let places = [asked, own.as_str()].map(|name| quoted(&self.path(name)));
            // The fingerprint is in the first bytes of a checkpoint.
            let has =
                places.iter().map(|place| format!("head -c 128 {place} 2>/dev/null | tr -cd a-z0-9 | grep -q {mark}"));
            if holds(has.collect::<Vec<_>>().join(" || "))? {
                continue;
            }
            let place = if holds(format!("test -e {}", places[0]))? { own.as_str() } else { asked };
            remote::upload(&machine, Path::new(&here), &self.path(place), progress)?;
        }
        Ok(())
    }

    /// Fetches the checkpoint called `name` there to its place here.
    fn receive<'a>(&self, name: &str, asked: &str, most: u64, give_up: &'a GiveUp<'a>) -> Result<()> {
        let arriving = format!("{asked}{ARRIVING}");
        remote::download(&self.within(most, give_up), &self.path(name), Path::new(&arriving), true, &Silent)?;
        engine::place_checkpoint(Path::new(&arriving), asked)
    }

    /// The machine with a limit of `most` bytes in addition to short answers.
    fn within<'a>(&self, most: u64, give_up: &'a GiveUp<'a>) -> Watched<&'a GiveUp<'a>> {
        Watched::new(self.machine.clone(), most.saturating_add(SHORT), Some(self.stall), give_up)
    }

    /// The reason why a wait for it ends, if there is one.
    fn given_up(&self, progress: &dyn Progress) -> Option<Error> {
        match progress.interrupted() {
            true => Some(Error::interrupted()),
            false => self.over_time().then(|| self.stopped(Error::interrupted())),
        }
    }
}

/// Stops a call when the money is spent, and fetches its checkpoints, so that another machine can
/// continue if this one is lost.
struct Watch<'scope, 'env> {
    lent: &'env Lent,
    progress: &'env dyn Progress,
    /// The requested file and its largest size in bytes.
    checkpoint: Option<(&'env str, u64)>,
    /// True while a fetch is running.
    courier: &'env AtomicBool,
    /// When to stop fetching after the end of the call.
    over: &'env Mutex<Option<Instant>>,
    /// Name of the latest checkpoint.
    told: &'env Mutex<Option<String>>,
    scope: &'scope Scope<'scope, 'env>,
}

impl Progress for Watch<'_, '_> {
    fn event(&self, event: Event) {
        if let Event::Checkpoint { path, .. } = &event {
            *self.told.lock().expect(UNHARMED) = Some(path.clone());
        }
        if let (Event::Checkpoint { path: name, .. }, Some((asked, most))) = (&event, self.checkpoint)
            && !self.courier.swap(true, Ordering::Relaxed)
        {
            let (lent, courier, over, name) = (self.lent, self.courier, self.over, name.clone());
            // If no thread can be started, it is not fetched.
            let fetching = threads::start_in(self.scope, move || {
                // A checkpoint that is replaced during the transfer is discarded. The next one may
                // arrive.
                let until = || *over.lock().expect(UNHARMED);
                let give_up = || until().filter(|until| Instant::now() > *until).map(|_| Error::interrupted());
                let _ = lent.receive(&name, asked, most, &give_up);
                courier.store(false, Ordering::Relaxed);
            });
            if fetching.is_err() {
                self.courier.store(false, Ordering::Relaxed);
            }
        }
        self.progress.event(event);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted() || self.lent.over_budget().is_some() || self.lent.over_time()
    }
}
