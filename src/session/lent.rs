//! A machine that this run works on: reached, with a worker on it, and given back at the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::Duration;

use super::remote::Link;
use super::{Op, Remote, Reply, Session, deploy};
use crate::error::{Error, Kind, Result};
use crate::gpu::ledger::now;
use crate::hub;
use crate::progress::{Event, Progress, Silent};
use crate::record::LoadArgs;
use crate::remote::{self, Machine, SyncReport, quoted};

/// How long a worker does without what, and what it does then.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The worker ends when no client has shown interest for so long; None: it stays.
    pub lease: Option<Duration>,
    /// … when a call makes no progress for so long.
    pub stall: Duration,
    /// … in any case.
    pub lifetime: Duration,
    /// How long a call tries to reach a silent machine.
    pub patience: Duration,
}

/// What a machine is called and what it costs.
#[derive(Clone, Debug)]
pub struct Label {
    /// Unique; also names the folder of the worker.
    pub name: String,
    /// The provider's id, or the name where the provider has none.
    pub id: String,
    pub provider: String,
    pub gpu: String,
    /// USD per hour.
    pub price: f64,
    /// USD that it may cost in all.
    pub max_cost: Option<f64>,
    pub keep_running: bool,
    /// Seconds since 1970, from when it is charged.
    pub since: f64,
}

pub struct Lent {
    pub label: Label,
    machine: Arc<dyn Machine>,
    remote: Remote,
    /// The project's folder on the machine.
    root: String,
    /// When it ends itself at the latest, seconds since 1970.
    until: f64,
    /// Held while its end is under way; true once it has ended.
    pub(super) ended: Mutex<bool>,
    ending: AtomicBool,
}

/// Brings the program to the machine and connects to its worker there.
pub fn lend(
    label: Label,
    machine: Arc<dyn Machine>,
    terms: &Terms,
    give_back: impl FnOnce(&str) -> Option<String>,
    progress: &dyn Progress,
) -> Result<Lent> {
    let own = std::env::current_exe().map_err(|e| Error::io("finding this program", &e))?;
    let binary = std::env::var_os("OUTLIER_WORKER").filter(|path| !path.is_empty()).map_or(own, Into::into);
    let program = deploy(&*machine, &binary, progress)?;
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
    if let Some(command) = give_back(&quoted(&program)) {
        attach += &format!(" --on-end {}", quoted(&command));
    }
    let until = now() + lifetime(&label, terms).as_secs_f64();
    let link = Link { machine: machine.clone(), attach, hub_token: hub::own_token() };
    // The first word tells whether it works at all, before anything is entrusted to it.
    super::status(&link)?;
    let remote = Remote::new(link, terms.patience, terms.lease);
    Ok(Lent { label, machine, remote, root, until, ended: Mutex::new(false), ending: AtomicBool::new(false) })
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

/// The folder of the project, by its name and where it is.
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
    /// USD so far.
    pub fn cost(&self) -> f64 {
        (now() - self.label.since) / 3600.0 * self.label.price
    }

    /// USD that it may cost in all.
    pub(super) fn most(&self) -> f64 {
        (self.until - self.label.since) / 3600.0 * self.label.price
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub fn machine(&self) -> Result<&dyn Machine> {
        self.usable()?;
        Ok(&*self.machine)
    }

    /// The command, run in the project's folder there.
    pub fn in_project(&self, command: &str) -> String {
        format!("mkdir -p {0} && cd {0} && {command}", quoted(&self.root))
    }

    /// A path in the project's folder there.
    pub fn path(&self, path: &str) -> String {
        if path.starts_with('/') || path.starts_with("~/") { path.to_string() } else { format!("{}/{path}", self.root) }
    }

    pub fn sync(&self, root: &Path, up: &[String], down: &[String], progress: &dyn Progress) -> Result<SyncReport> {
        remote::sync(self.machine()?, root, &self.root, up, down, progress)
    }

    /// Until when it stays when nobody renews anything, in words.
    pub fn stays(&self) -> String {
        match self.remote.status().map(|status| status.lease) {
            Ok(Some(seconds)) => format!("it ends itself {:.0} min from now if nobody attaches to it", seconds / 60.0),
            Ok(None) => "it stays until it is terminated".to_string(),
            Err(error) => format!("it does not answer: {}", error.message),
        }
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

    /// Nobody here wanted it to stop.
    fn stopped(&self, error: Error) -> Error {
        if error.kind != Kind::Interrupted {
            return error;
        }
        let why = self.machine.ended().map_or_else(String::new, |why| format!(": {why}"));
        Error::new(Kind::Lost, format!("{}: its worker was told to stop{why}", self.machine.name()))
            .hint("its time was over, or somebody else ended it: run the script again, finished work is kept")
    }

    /// Ends the worker; the machine is its provider's affair.
    pub(super) fn end_worker(&self) {
        if !self.ending.swap(true, Ordering::Relaxed) {
            self.remote.end();
        }
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
            self.bring(path, progress)?;
        }
        let courier = AtomicBool::new(false);
        let mut outcome = std::thread::scope(|scope| {
            let watch = Watch { lent: self, progress, courier: &courier, scope };
            self.remote.call(op, &watch)
        });
        if let (Ok(_), Some(path)) = (&outcome, &checkpoint) {
            let _ = std::fs::remove_file(path);
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

    fn fetch(&self, root: &Path, path: &str, progress: &dyn Progress) -> Result<()> {
        remote::download(self.machine()?, &self.path(path), &root.join(path), progress)
    }
}

impl Lent {
    /// Sends a checkpoint that another machine has left here, unless this one has its own.
    fn bring(&self, checkpoint: &str, progress: &dyn Progress) -> Result<()> {
        let (here, there) = (Path::new(checkpoint), self.path(checkpoint));
        if !here.exists() {
            return Ok(());
        }
        let own = remote::finish(&*self.machine, &format!("test -e {}", quoted(&there)))?;
        if own.code == 0 { Ok(()) } else { remote::upload(&*self.machine, here, &there, progress) }
    }
}

/// Stops a call when the money is spent, and has its checkpoints fetched, so that another machine can go on when this one
/// is lost.
struct Watch<'scope, 'env> {
    lent: &'env Lent,
    progress: &'env dyn Progress,
    /// One fetches at a time.
    courier: &'env AtomicBool,
    scope: &'scope Scope<'scope, 'env>,
}

impl Progress for Watch<'_, '_> {
    fn event(&self, event: Event) {
        if let Event::Checkpoint { path, .. } = &event
            && !self.courier.swap(true, Ordering::Relaxed)
        {
            let (lent, courier, path) = (self.lent, self.courier, path.clone());
            self.scope.spawn(move || {
                // One that is replaced meanwhile does not arrive whole, and so not at all: the next one may.
                let _ = remote::download(&*lent.machine, &lent.path(&path), Path::new(&path), &Silent);
                courier.store(false, Ordering::Relaxed);
            });
        }
        self.progress.event(event);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted() || self.lent.over_budget().is_some()
    }
}
