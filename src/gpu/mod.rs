//! Machines with a GPU, rented or the user's own: the providers, and the creation, recovery and
//! termination of machines.

mod bounded;
mod failure;
mod id;
pub mod ledger;
mod ledger_table;
pub mod own;
mod owner;
mod patience;
mod provider;
pub mod rent;
pub mod runpod;
pub mod slurm;
mod tenure;
mod way;

pub use failure::Failure;
pub use id::{ProviderId, ProviderKind};
pub use patience::Patience;
pub use provider::{Description, JobOptions, Offer, PREFIX, Provider, Reached, SshAddress, State, Want};
pub use tenure::Tenure;
pub use way::Way;

use std::sync::Arc;

use crate::error::{Error, Result};

/// The possible providers: those that everybody has, and those in open rows.
pub fn providers(open: &[ledger::Entry]) -> Vec<ProviderId> {
    let mut ids = vec![ProviderId::RunPod, ProviderId::Slurm(None)];
    ids.extend(open.iter().map(|entry| entry.provider.clone()));
    ids.sort();
    ids.dedup();
    ids
}

/// True if this user may have machines of this provider: with a key for RunPod, and for a cluster
/// if the project has used one. The existence of `squeue` alone is not enough.
pub fn has_account(id: &ProviderId, known: &[ledger::Entry]) -> bool {
    known.iter().any(|entry| entry.provider == *id) || (*id == ProviderId::RunPod && runpod::has_key())
}

/// The provider of this identity: one that rents machines, or the user's own machine.
///
/// # Errors
/// If it is not available, or if another version of this program has named it.
pub fn provider(id: &ProviderId) -> Result<Arc<dyn Provider>> {
    match id {
        ProviderId::RunPod => Ok(Arc::new(runpod::RunPod::new()?)),
        ProviderId::Slurm(way) => Ok(Arc::new(slurm::Slurm::new(way.clone())?)),
        ProviderId::Own(way) => Ok(Arc::new(own::Own::new(way.clone())?)),
        ProviderId::Unknown(text) => Err(Error::of(Failure::UnknownProvider(text.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// A ledger as version 0.1.0 writes it.
    const LEDGER: &str = "CREATE TABLE machines (
             name TEXT PRIMARY KEY, run TEXT NOT NULL, task TEXT, provider TEXT NOT NULL, id TEXT, gpu TEXT NOT NULL,
             price REAL NOT NULL, stage TEXT NOT NULL, since REAL NOT NULL, until REAL, cost REAL,
             keep_running INTEGER NOT NULL DEFAULT 0, key_file TEXT, ssh TEXT, fingerprints TEXT, owner TEXT NOT NULL
         );
         INSERT INTO machines VALUES
             ('outlier-a-1', 'a', 't', 'runpod', 'pod1', 'NVIDIA A40', 0.5, 'ready', 1.0, NULL, NULL, 0, 'k',
              '{\"user\":\"root\",\"host\":\"h\",\"port\":7}', '[\"SHA256:x\"]', '17 99 host machine boot -'),
             ('outlier-a-2', 'a', NULL, 'slurm:me@login:22;key=/k', '41', 'gpu:1', 0.0, 'created', 2.0, NULL, NULL, 1,
              'k', NULL, NULL, '17 99 host machine boot -'),
             ('outlier-a-3', 'a', NULL, 'ssh:me@box;fingerprint=SHA256:y', 'box', '', 0.0, 'ready', 3.0, 9.0, NULL, 0,
              NULL, NULL, NULL, '17 99 host machine boot -'),
             ('outlier-a-4', 'a', NULL, 'cloud9:x', NULL, 'GPU', 1.0, 'intended', 4.0, NULL, NULL, 0, 'k', NULL, NULL,
              '17 99 host machine boot -');";

    #[test]
    fn a_ledger_of_an_earlier_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpus.sqlite");
        rusqlite::Connection::open(&path).unwrap().execute_batch(LEDGER).unwrap();
        let ledger = ledger::Ledger::open(&path).unwrap();
        let open = ledger.open_entries().unwrap();
        let shown: Vec<_> =
            open.iter().map(|entry| (entry.provider.to_string(), entry.known_as().map(str::to_string))).collect();
        let known_as = |id: &str| Some(id.to_string());
        assert_eq!(
            shown,
            [
                ("runpod".to_string(), known_as("pod1")),
                ("slurm:me@login:22".to_string(), known_as("41")),
                ("ssh:me@box".to_string(), known_as("outlier-a-3")),
                ("cloud9:x".to_string(), None),
            ]
        );
        assert_eq!(open[0].ssh.as_ref().map(|ssh| ssh.port), Some(7));
        // Each is asked for its machines, and what is no provider says so.
        let all: Vec<String> = providers(&open).iter().map(ProviderId::stored).collect();
        let expected = ["runpod", "slurm", "slurm:me@login:22;key=/k", "ssh:me@box;fingerprint=SHA256:y", "cloud9:x"];
        assert_eq!(all, expected);
        let unknown = provider(&open[3].provider).err().unwrap();
        assert_eq!((unknown.kind, unknown.message.as_str()), (Kind::BadArgument, "no provider \"cloud9:x\""));
    }
}
