//! The interface of providers of machines: requests and answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::ProviderId;
use super::patience::Patience;
use crate::error::Result;
use crate::record::option::option_set;
use crate::record::option_types::{Optional, Text, Whole};
use crate::remote::{Login, Machine, Ssh};

/// The prefix of our machines' names.
pub const PREFIX: &str = "outlier-";

/// The requirements of a script.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// Names or parts of names, such as "A100" or "NVIDIA L40S"; any GPU if empty. Tried in this
    /// order.
    pub gpus: Vec<String>,
    pub gpu_count: usize,
    /// GB per GPU.
    pub min_vram_gb: Option<f64>,
    /// Lowest CUDA version that the host's driver must support, such as "12.8".
    pub min_cuda: Option<String>,
    /// "secure", "community" or "any".
    pub cloud: Option<String>,
    /// USD per hour for all GPUs together.
    pub max_price: Option<f64>,
    /// The most that this machine may cost in total, in USD.
    pub max_cost: Option<f64>,
    /// The machine ends itself after this many hours.
    pub max_hours: f64,
    /// The expected duration of the work in hours.
    pub expected_hours: Option<f64>,
    pub disk_gb: u64,
    pub image: Option<String>,
    pub job: JobOptions,
}

option_set! {
    /// What is asked of a cluster, with the options of provision_gpu.
    #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
    pub struct JobOptions {
        /// slurm: partition
        partition: Optional<Text>;
        /// slurm: account
        account: Optional<Text>;
        /// slurm: quality of service
        qos: Optional<Text>;
        /// slurm: generic resources, such as "gpu:1"
        gres: Optional<Text>;
        /// slurm: features that the node must have, such as "a100&nvlink"
        constraint: Optional<Text>;
        /// slurm: cores
        cpus: Optional<Whole>;
        /// slurm: memory
        memory_gb: Optional<Whole>;
    }
}

/// An offer that meets the requirements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    pub provider: ProviderId,
    /// The provider's id of the GPU type.
    pub gpu: String,
    pub gpu_count: usize,
    /// GB per GPU.
    pub vram_gb: f64,
    pub cloud: String,
    /// USD per hour for all GPUs together; 0 if nothing is charged.
    pub price: f64,
    /// "high", "medium", "low" or "".
    pub stock: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Created, and not reachable yet.
    Starting,
    Running,
    /// Not running, but it exists and its disk is charged.
    Stopped,
    Failed,
}

/// The address of a machine's sshd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshAddress {
    pub user: String,
    pub host: String,
    pub port: u16,
}

/// A machine as its provider describes it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    pub id: String,
    /// Its unique name, given at creation.
    pub name: String,
    pub state: State,
    pub gpu: String,
    /// Current price in USD per hour.
    pub price: f64,
    pub ssh: Option<SshAddress>,
    /// RFC 3339, from the provider.
    pub created: String,
    /// The reason why it has not started, or has stopped; empty if unknown.
    pub why: String,
}

/// A service that provides machines. Every method is one exchange with it. The caller waits and
/// retries.
pub trait Provider: Send + Sync {
    fn id(&self) -> &ProviderId;

    /// The service's time limits.
    fn patience(&self) -> Patience {
        Patience::from_environment()
    }

    /// Currently available offers, best first.
    fn offers(&self, want: &Want) -> Result<Vec<Offer>>;

    /// Requests a machine and returns at once. After an error of kind `Timeout`, `Lost` or
    /// `Service` the machine may exist: its name must be searched before anything else.
    fn create(&self, name: &str, offer: &Offer, want: &Want, public_key: &str) -> Result<Description>;

    /// Returns None if the machine does not exist (any more).
    fn describe(&self, id: &str) -> Result<Option<Description>>;

    /// All machines of the account, including those of other work. Names distinguish them.
    fn list(&self) -> Result<Vec<Description>>;

    /// Requests the termination of a machine. A missing machine is not an error.
    fn terminate(&self, id: &str) -> Result<()>;

    /// The machine's output so far, for people.
    fn logs(&self, id: &str) -> Result<String>;

    /// The connection to a running machine; None if it is not reachable yet. `key` is the private
    /// key of `public_key`.
    fn reach(&self, machine: &Description, key: &Path) -> Result<Option<Reached>>;

    /// Reconnects to a machine, with the address and fingerprints that were recorded.
    fn again(&self, address: &SshAddress, key: &Path, fingerprints: &[String]) -> Result<Arc<dyn Machine>>;

    /// The command that terminates the machine from inside; `worker` is the program there.
    fn give_back_command(&self, worker: &str) -> Option<String>;
}

/// A connection to a machine.
pub struct Reached {
    pub machine: Arc<dyn Machine>,
    pub ssh: Option<SshAddress>,
    /// Fingerprints of its host keys.
    pub fingerprints: Vec<String>,
}

/// Connects to an address and accepts one of these host keys.
///
/// # Errors
/// An invalid address.
pub(super) fn ssh(
    address: &SshAddress,
    key: &Path,
    fingerprints: &[String],
    timeout: Duration,
) -> Result<Arc<dyn Machine>> {
    let SshAddress { user, host, port } = address;
    let login = Login::made(user, host, *port, key.to_path_buf(), fingerprints.to_vec(), timeout)?;
    Ok(Arc::new(Ssh::new(login)))
}
