//! A machine that this run uses: connected, with a worker, and terminated at the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::checkpoints::Checkpoints;
use super::confined;
use super::deploy::{Deployed, deploy};
use super::failure::Failure;
use super::label::Label;
use super::project_folder::{self, ProjectFolder, SHORT};
use super::remote::{Link, status};
use super::request::{
    DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Request, Serve,
};
use super::watched::{GiveUp, Watched};
use super::{Remote, Session};
use crate::error::{Error, Kind, Result};
use crate::gpu::ledger::now;
use crate::hub;
use crate::progress::{Event, Progress, interrupt_requested};
use crate::record::{Activations, Estimate, LoadArgs, Miniature, Tokens};
use crate::remote::{self, Machine, Rules, SyncReport, quoted};

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

/// Hashing a large file takes long without visible progress.
const SHORTEST_STALL: Duration = Duration::from_secs(600);
/// A machine ends itself when its time is over. Waits for it last this much longer.
const OVERTIME: f64 = 120.0;

pub struct Lent {
    pub label: Label,
    folder: ProjectFolder,
    /// The machine for work of a script, which may be abandoned.
    watched: Watched<Box<GiveUp<'static>>>,
    remote: Remote,
    /// True if it is this computer.
    here: bool,
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
    let root = project_folder::root();
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
    attach += label.tenure().attach_options();
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
        false => (now() > until + OVERTIME).then(|| Error::of(Failure::TimeOver(name.clone()))),
    });
    // A script's own commands may take long and be silent.
    let watched = Watched::new(wanted, u64::MAX, None, give_up);
    let folder = ProjectFolder { machine, root, stall };
    Ok(Lent { label, folder, watched, remote, here, until, ended, ending })
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
        self.folder.in_project(command)
    }

    /// A path in the project's folder there.
    pub fn path(&self, path: &str) -> String {
        self.folder.path(path)
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
            true => confined::check(machine, &self.folder.root, "sync", names),
            false => Ok(()),
        };
        remote::sync(machine, root, &self.folder.root, paths, &Rules { there: &there, replaces }, progress)
    }

    /// In words, how long it stays if nobody renews it.
    pub fn stays(&self) -> String {
        match self.remote.status().map(|status| status.lease) {
            Ok(Some(seconds)) => format!("it ends itself {:.0} min from now if nobody attaches to it", seconds / 60.0),
            Ok(None) => self.label.tenure().stays((self.until - now()).max(0.0) / 3600.0),
            Err(error) => format!("it does not answer: {}", error.message),
        }
    }

    /// In words, for a machine that outlives its run: its cost, how long it stays, how to use it
    /// again and how to end it.
    pub(super) fn left_running(&self) -> String {
        let Label { id, name, gpu, price, .. } = &self.label;
        let (known_as, left) = self.label.tenure().left_running(name, id, gpu, *price, self.cost());
        format!(
            "{left}; {}; `outlier repl --attach {known_as}` takes it up again, `outlier gpus terminate {known_as}` ends it",
            self.stays()
        )
    }

    fn usable(&self) -> Result<()> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(Error::of(Failure::GivenBack(self.label.name.clone())));
        }
        Ok(())
    }

    fn over_budget(&self) -> Option<Error> {
        let (cost, max_cost) = (self.cost(), self.label.max_cost?);
        (cost >= max_cost).then(|| Error::of(Failure::OverBudget { name: self.label.name.clone(), cost, max_cost }))
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
        let machine = &self.folder.machine;
        Error::of(Failure::ToldToStop { machine: machine.name(), reason: machine.ended() })
    }

    /// Ends the worker. The provider ends the machine. False if the worker has not confirmed it.
    pub(super) fn end_worker(&self) -> bool {
        self.ending.swap(true, Ordering::Relaxed) || self.remote.end()
    }
}

impl Lent {
    /// Carries out `work` as long as the machine may be used and paid for.
    fn within_means<T>(&self, progress: &dyn Progress, work: impl FnOnce(&dyn Progress) -> Result<T>) -> Result<T> {
        self.usable()?;
        if let Some(error) = self.over_budget() {
            return Err(error);
        }
        match work(&Limited { lent: self, progress }) {
            // A machine that ended itself when its money was spent looks lost.
            Err(error) if matches!(error.kind, Kind::Lost | Kind::Interrupted) && !progress.interrupted() => {
                Err(self.over_budget().unwrap_or_else(|| self.stopped(error)))
            }
            other => other,
        }
    }

    /// Carries out a request that leaves nothing on the machine that would have to be fetched.
    fn relayed<R: Request>(&self, request: R, progress: &dyn Progress) -> Result<R::Reply>
    where
        Remote: Serve<R>,
    {
        self.within_means(progress, |progress| self.remote.serve(request, progress))
    }

    /// The reason why a wait for it ends, if there is one.
    fn given_up(&self, progress: &dyn Progress) -> Option<Error> {
        match progress.interrupted() {
            true => Some(Error::interrupted()),
            false => self.over_time().then(|| self.stopped(Error::interrupted())),
        }
    }
}

impl Serve<Load> for Lent {
    fn serve(&self, request: Load, progress: &dyn Progress) -> Result<Loaded> {
        self.relayed(request, progress)
    }
}

impl Serve<LoadTokens> for Lent {
    fn serve(&self, request: LoadTokens, progress: &dyn Progress) -> Result<Tokens> {
        self.relayed(request, progress)
    }
}

impl Serve<EstimateWork> for Lent {
    fn serve(&self, request: EstimateWork, progress: &dyn Progress) -> Result<Estimate> {
        self.relayed(request, progress)
    }
}

impl Serve<EncodeTexts> for Lent {
    fn serve(&self, request: EncodeTexts, progress: &dyn Progress) -> Result<Vec<Vec<u32>>> {
        self.relayed(request, progress)
    }
}

impl Serve<DecodeIds> for Lent {
    fn serve(&self, request: DecodeIds, progress: &dyn Progress) -> Result<Vec<String>> {
        self.relayed(request, progress)
    }
}

impl Serve<MakeMiniature> for Lent {
    fn serve(&self, request: MakeMiniature, progress: &dyn Progress) -> Result<Miniature> {
        self.relayed(request, progress)
    }
}

impl Serve<Extract> for Lent {
    fn serve(&self, request: Extract, progress: &dyn Progress) -> Result<Activations> {
        let give_up = || self.given_up(progress);
        let mut acts = self.within_means(progress, |limited| {
            let Some(asked) = request.checkpoint().map(str::to_string) else {
                return self.remote.serve(request, limited);
            };
            let most = self.remote.known(&request.model).and_then(|info| request.checkpoint_bytes(&info));
            let checkpoints = Checkpoints { there: &self.folder, asked: &asked, most, give_up: &give_up };
            checkpoints.send(&request, progress)?;
            checkpoints.fetched_during(limited, |watch| self.remote.serve(request, watch))
        })?;
        acts.measurements.machine = format!("{} {}", self.label.provider.short(), self.label.gpu).trim().to_string();
        acts.measurements.machine_cost_usd = self.cost();
        Ok(acts)
    }
}

impl Session for Lent {
    fn loaded(&self) -> Result<Vec<LoadArgs>> {
        self.usable()?;
        self.remote.loaded()
    }

    fn fetch(&self, root: &Path, path: &str, most: u64, progress: &dyn Progress) -> Result<()> {
        self.usable()?;
        let give_up = || self.given_up(progress);
        let machine = self.folder.within(most, &give_up);
        remote::download(&machine, &self.path(path), &root.join(path), true, progress)
    }

    fn machine(&self) -> Option<&str> {
        Some(&self.label.id)
    }

    fn confined(&self, what: &str, path: &str) -> Result<()> {
        if !self.here {
            return Ok(());
        }
        remote::inside(what, path)?;
        confined::check(self.machine()?, &self.folder.root, what, &[path.to_string()])
    }
}

/// Stops a call when the money is spent or the time is over.
struct Limited<'a> {
    lent: &'a Lent,
    progress: &'a dyn Progress,
}

impl Progress for Limited<'_> {
    fn event(&self, event: Event) {
        self.progress.event(event);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted() || self.lent.over_budget().is_some() || self.lent.over_time()
    }
}
