//! What is alive at the end of a run, by the listings of the providers.

use crate::gpu::Provider;
use crate::gpu::ledger::Ledger;
use crate::gpu::rent::{self, Reap};
use crate::words::counted;

/// The state at the end of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ending {
    pub lines: Vec<String>,
    /// True if a machine is, or may be, alive that should not be.
    pub leaked: bool,
}

impl Ending {
    /// Ends what dead runs have left at a provider, and adds what is alive there of the run `run`.
    pub(super) fn add(&mut self, provider: &dyn Provider, ledger: &Ledger, run: &str) {
        match rent::reap(provider, ledger, &provider.patience(), Reap::All) {
            Ok(lines) => self.lines.extend(lines),
            Err(error) => self.lines.push(format!("looking for leftovers: {}", error.message)),
        }
        let id = provider.id();
        let mine = match rent::alive(provider, ledger) {
            Ok(alive) => alive
                .into_iter()
                .filter(|alive| alive.entry.as_ref().is_some_and(|entry| entry.run == run))
                .collect::<Vec<_>>(),
            Err(error) => {
                // If no machine was ever created, none can be alive.
                let open = ledger.open_entries();
                if open.is_ok_and(|open| open.iter().all(|entry| entry.run != run)) {
                    return;
                }
                self.leaked = true;
                self.lines.push(format!("{id}: what is alive could not be verified: {}", error.message));
                return;
            }
        };
        let cost = ledger.cost_of_run(run).unwrap_or(0.0);
        let count = counted(mine.len(), "machine");
        self.lines.push(format!("{id}: {count} of this run alive, by its own listing; cost ${cost:.2}"));
        for alive in mine {
            let entry = alive.entry.expect("filtered");
            let (id, gpu, price) = (&alive.machine.id, &entry.gpu, alive.machine.price);
            // A job of a cluster costs no money.
            let costs = if price > 0.0 { format!(" and costs ${price:.2}/h") } else { String::new() };
            if entry.keep_running {
                self.lines
                    .push(format!("  {id} ({gpu}) is kept running{costs}: `outlier gpus terminate {id}` ends it"));
            } else {
                self.leaked = true;
                self.lines.push(format!("  {id} ({gpu}) is still alive{costs}"));
            }
        }
    }
}
