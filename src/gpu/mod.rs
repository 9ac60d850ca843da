//! Machines with a GPU, rented or the user's own: the providers, and the creation, recovery and
//! termination of machines.

mod bounded;
pub mod ledger;
pub mod own;
mod owner;
mod patience;
mod provider;
pub mod rent;
pub mod runpod;
pub mod slurm;
mod way;

pub use patience::Patience;
pub use provider::{Description, Offer, PREFIX, Provider, Reached, SshAddress, State, Want};

use std::sync::Arc;

use crate::error::{Error, Result};

/// Names of the possible providers: those that everybody has, and those in open rows.
pub fn names(open: &[ledger::Entry]) -> Vec<String> {
    let mut names = vec!["runpod".to_string(), "slurm".to_string()];
    names.extend(open.iter().map(|entry| entry.provider.clone()));
    names.sort();
    names.dedup();
    names
}

/// True if this user may have machines of this provider: with a key for RunPod, and for a cluster
/// if the project has used one. The existence of `squeue` alone is not enough.
pub fn has_account(name: &str, known: &[ledger::Entry]) -> bool {
    known.iter().any(|entry| entry.provider == name) || (name == "runpod" && runpod::has_key())
}

/// The provider of this name: one that rents machines, or the user's own machine.
pub fn provider(name: &str) -> Result<Arc<dyn Provider>> {
    match name {
        "runpod" => Ok(Arc::new(runpod::RunPod::new()?)),
        name if name == "slurm" || name.starts_with("slurm:") => Ok(Arc::new(slurm::Slurm::new(name)?)),
        name if own::is_own(name) => Ok(Arc::new(own::Own::new(name)?)),
        other => Err(Error::bad_argument(format!("no provider \"{other}\""))
            .hint("providers are \"local\", \"ssh\", \"slurm\" and \"runpod\"")),
    }
}
