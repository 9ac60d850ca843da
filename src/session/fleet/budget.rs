//! The money that all machines of a run may cost together.

use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::gpu::Want;
use crate::gpu::ledger::{Entry, Ledger};
use crate::session::lent::Lent;

#[derive(Default)]
pub(super) struct Budget {
    /// In USD; None for no limit.
    cap: Mutex<Option<f64>>,
}

impl Budget {
    /// Limits the cost in USD of all machines of the run.
    pub(super) fn limit(&self, most: f64) {
        *self.cap.lock().expect("no panic under this lock") = Some(most);
    }

    /// The requirements, with a cost of at most what is left of the limit: the limit less the cost
    /// of past machines and the possible cost of running ones. The machine ends itself when that is
    /// spent.
    pub(super) fn within(&self, want: &Want, run: &str, ledger: &Ledger, machines: &[Arc<Lent>]) -> Result<Want> {
        let cap = *self.cap.lock().expect("no panic under this lock");
        let Some(cap) = cap else { return Ok(want.clone()) };
        let alive = |entry: &Entry| machines.iter().find(|lent| lent.label.name == entry.name && !lent.has_ended());
        let entries = ledger.all()?.into_iter().filter(|entry| entry.run == run);
        let promised = |entry: Entry| alive(&entry).map_or(entry.cost_so_far(), |lent| lent.most());
        let left = cap - entries.map(promised).sum::<f64>();
        Ok(Want { max_cost: Some(want.max_cost.map_or(left, |cap| cap.min(left))), ..want.clone() })
    }
}
