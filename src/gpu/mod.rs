//! Machines with a GPU, rented or lent: who offers them, how one is created, found again and given back.

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

/// Names of the providers that there may be machines of: those everybody has, and those that open rows name.
pub fn names(open: &[ledger::Entry]) -> Vec<String> {
    let mut names = vec!["runpod".to_string(), "slurm".to_string()];
    names.extend(open.iter().map(|entry| entry.provider.clone()));
    names.sort();
    names.dedup();
    names
}

/// Whether this user may have machines of this provider: with a key of RunPod, and of a cluster when the project has had some. A
/// program `squeue` alone makes no cluster.
pub fn has_account(name: &str, known: &[ledger::Entry]) -> bool {
    known.iter().any(|entry| entry.provider == name) || (name == "runpod" && runpod::has_key())
}

/// The provider of this name: one that machines are rented from, or a machine that the user has.
pub fn provider(name: &str) -> Result<Arc<dyn Provider>> {
    match name {
        "runpod" => Ok(Arc::new(runpod::RunPod::new()?)),
        name if name == "slurm" || name.starts_with("slurm:") => Ok(Arc::new(slurm::Slurm::new(name)?)),
        name if own::is_own(name) => Ok(Arc::new(own::Own::new(name)?)),
        other => Err(Error::bad_argument(format!("no provider \"{other}\""))
            .hint("providers are \"local\", \"ssh\", \"slurm\" and \"runpod\"")),
    }
}
