//! Machines that dead runs left behind: ended, or taken over for the same task.

use std::sync::Arc;

use super::connection::{Run, reconnect};
use crate::error::Result;
use crate::gpu::ledger::Ledger;
use crate::gpu::rent::{self, Reap};
use crate::gpu::{self, Provider};
use crate::progress::{Event, Progress};
use crate::session::lent::Lent;
use crate::session::provision::Provision;

/// Ends the machines of dead runs that nobody will take over. What is done and what fails is
/// reported.
pub(super) fn reap_useless(provider: &dyn Provider, ledger: &Ledger, progress: &dyn Progress) {
    match rent::reap(provider, ledger, &provider.patience(), Reap::Useless) {
        Ok(lines) => lines.into_iter().for_each(|line| progress.event(Event::Warning(line))),
        Err(error) => progress.event(Event::Warning(format!("looking for leftovers: {}", error.message))),
    }
}

/// A machine that a dead run left running on the task of `asked`.
pub(super) fn take_over(
    run: &Run,
    asked: &Provision,
    provider: &dyn Provider,
    ledger: &Ledger,
    progress: &dyn Progress,
) -> Result<Option<Arc<Lent>>> {
    let Some(task) = &asked.task else { return Ok(None) };
    for entry in ledger.left_over(provider.id(), task)? {
        if !ledger.take_over(&entry, &run.name)? {
            continue;
        }
        match reconnect(&entry, provider, ledger, &asked.terms, asked.want.max_cost, progress) {
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

/// Ends the machines that dead runs left running on `task`, because it is done.
pub(super) fn give_back(ledger: &Ledger, task: &str) -> Result<()> {
    for id in gpu::providers(&ledger.open_entries()?) {
        for entry in ledger.left_over(&id, task)? {
            let provider = gpu::provider(&id)?;
            match rent::end(&*provider, ledger, &provider.patience(), &entry.name) {
                // Its row stays.
                Err(_) if entry.tenure().may_be_out_of_reach() => (),
                ended => ended?,
            }
        }
    }
    Ok(())
}
