//! What a script asks for when it wants a machine.

use super::lent::Terms;
use crate::gpu::Want;
use crate::remote::SshTarget;

/// What `provision_gpu` asks for.
#[derive(Clone, Debug)]
pub struct Provision {
    pub provider: String,
    pub want: Want,
    pub ssh: Option<SshTarget>,
    pub terms: Terms,
    pub keep_running: bool,
    /// What the machine is for: a later run that asks for the same takes it over where this one died.
    pub task: Option<String>,
    /// Bytes that must be free on a machine that the user has; what is rented is rented with its disk.
    pub room: Option<u64>,
}
