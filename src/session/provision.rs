//! A script's request for a machine.

use super::failure::Failure;
use super::lent::Terms;
use crate::error::{Error, Result};
use crate::gpu::{ProviderId, ProviderKind, Want, Way, own};
use crate::remote::SshTarget;

/// The options of `provision_gpu`.
#[derive(Clone, Debug)]
pub struct Provision {
    pub provider: ProviderKind,
    pub want: Want,
    /// The user's own machine, or the login node of a cluster; None for the cluster of this
    /// computer.
    pub ssh: Option<SshTarget>,
    pub terms: Terms,
    pub keep_running: bool,
    /// The task of the machine: a later run of the same task takes it over if this one dies.
    pub task: Option<String>,
    /// Bytes that must be free on a user's own machine. A rented one is rented with its disk.
    pub room: Option<u64>,
}

impl Provision {
    /// The address of the user's own machine.
    ///
    /// # Errors
    /// `bad_argument` if there is none.
    pub(super) fn own_machine(&self) -> Result<&SshTarget> {
        self.ssh.as_ref().ok_or_else(|| Error::of(Failure::NoHost))
    }

    /// Whose machine is asked for. The host key of a user's own machine is not verified yet.
    ///
    /// # Errors
    /// An invalid or missing address.
    pub fn provider_id(&self) -> Result<ProviderId> {
        match self.provider {
            ProviderKind::RunPod => Ok(ProviderId::RunPod),
            ProviderKind::Slurm => self.ssh.as_ref().map(Way::new).transpose().map(ProviderId::Slurm),
            ProviderKind::Ssh => own::id_of(self.own_machine()?, None),
        }
    }
}
