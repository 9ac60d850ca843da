//! A script's request for a machine.

use super::lent::Terms;
use crate::gpu::Want;
use crate::remote::SshTarget;

/// The options of `provision_gpu`.
#[derive(Clone, Debug)]
pub struct Provision {
    pub provider: String,
    pub want: Want,
    pub ssh: Option<SshTarget>,
    pub terms: Terms,
    pub keep_running: bool,
    /// The task of the machine: a later run of the same task takes it over if this one dies.
    pub task: Option<String>,
    /// Bytes that must be free on a user's own machine. A rented one is rented with its disk.
    pub room: Option<u64>,
}
