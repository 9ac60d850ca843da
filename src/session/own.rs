//! The user's own machines: reached over SSH, with a worker that begins and ends there, and a row
//! in the ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::label::Label;
use super::lent::{Lent, lend};
use super::project_folder::project_name;
use super::provision::Provision;
use crate::error::Result;
use crate::gpu::ledger::{Ledger, Purpose, now};
use crate::gpu::rent::{self, Reap};
use crate::gpu::{self, ProviderId, own};
use crate::progress::{Event, Progress};
use crate::remote::{HereGrouped, Machine, Ssh, check_room};

/// A machine that does not answer within this time is not available.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The user's own machine with a worker, for the run `run`; `ledger` is the ledger of its project.
pub(super) fn provision(asked: &Provision, run: &str, ledger: &Path, progress: &dyn Progress) -> Result<Arc<Lent>> {
    let target = asked.own_machine()?;
    let ssh = match target.host.as_str() {
        // As on another machine, but without a network.
        "localhost" => None,
        _ => {
            let login = target.login(CONNECT_TIMEOUT)?;
            login.notes.iter().for_each(|note| progress.event(Event::Warning(note.clone())));
            Some(Arc::new(Ssh::new(login)))
        }
    };
    let machine: Arc<dyn Machine> = match &ssh {
        None => Arc::new(HereGrouped),
        Some(ssh) => ssh.clone(),
    };
    if let Some(bytes) = asked.room {
        check_room(&*machine, "~/", bytes, "what `disk_gb` asks for")?;
    }
    // The worker of a task is found again by its name.
    let name = match &asked.task {
        Some(task) => format!("{}{}-{task}", gpu::PREFIX, project_name()),
        None => format!("{}{}-{:06x}", gpu::PREFIX, run, rand::random::<u32>() & 0xff_ffff),
    };
    let label = Label {
        id: target.host.clone(),
        provider: asked.provider_id()?,
        gpu: String::new(),
        price: 0.0,
        max_cost: None,
        keep_running: asked.keep_running,
        since: now(),
        name,
    };
    let name = label.name.clone();
    // The machine has answered, and nothing runs there yet.
    let written = |_: &str| match note(
        asked,
        run,
        ledger,
        &label,
        &own::id_of(target, ssh.and_then(|ssh| ssh.proved()))?,
        progress,
    ) {
        Err(error) if asked.keep_running => Err(error),
        Err(error) => {
            let text = format!("{}: it is not written down that it is at work: {}", label.id, error.message);
            progress.event(Event::Warning(text));
            Ok(None)
        }
        Ok(()) => Ok(None),
    };
    let lent = lend(label.clone(), machine, &asked.terms, written, progress);
    if let Ok(ledger) = Ledger::open(ledger) {
        let _ = match &lent {
            Ok(_) => ledger.ready(&name, None, &[]),
            // It may have started all the same, and ends itself if nobody connects.
            Err(_) if !asked.keep_running => ledger.closed(&name),
            Err(_) => ledger.ending(&name),
        };
    }
    lent.map(Arc::new)
}

/// Records a worker on the user's own machine before it is started, and ends the workers that dead
/// runs left there.
fn note(
    asked: &Provision,
    run: &str,
    ledger: &Path,
    label: &Label,
    provider: &ProviderId,
    progress: &dyn Progress,
) -> Result<()> {
    let ledger = Ledger::open(ledger)?;
    let left = ledger.open_entries()?.into_iter().any(|entry| entry.provider == *provider && entry.owner.is_dead());
    if left {
        let provider = gpu::provider(provider)?;
        match rent::reap(&*provider, &ledger, &provider.patience(), Reap::Useless) {
            Ok(lines) => lines.into_iter().for_each(|line| progress.event(Event::Warning(line))),
            Err(error) => progress.event(Event::Warning(format!("looking for leftovers: {}", error.message))),
        }
    }
    let (run, task, keep_running) = (run.to_string(), asked.task.clone(), asked.keep_running);
    let purpose = Purpose { run, task, key_file: PathBuf::new(), keep_running };
    ledger.lent(&label.name, provider, &label.id, &purpose, now() + asked.terms.lifetime.as_secs_f64())
}
