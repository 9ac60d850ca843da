//! The interface of those who lend machines: what can be asked of them, and what they say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::patience::Patience;
use crate::error::Result;
use crate::remote::{Login, Machine, Ssh};

/// What all our machines are called.
pub const PREFIX: &str = "outlier-";

/// What a script asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// Names or parts of names, such as "A100" or "NVIDIA L40S"; any GPU when empty. Tried in this order.
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
    /// USD that this machine may cost in all.
    pub max_cost: Option<f64>,
    /// The machine ends itself after so many hours.
    pub max_hours: f64,
    /// How long the work is thought to take.
    pub expected_hours: Option<f64>,
    pub disk_gb: u64,
    pub image: Option<String>,
    /// Slurm only.
    pub partition: Option<String>,
    pub account: Option<String>,
    pub qos: Option<String>,
    pub gres: Option<String>,
    pub cpus: Option<usize>,
    pub memory_gb: Option<u64>,
}

/// One way to get what is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    pub provider: String,
    /// The provider's own id of the GPU type.
    pub gpu: String,
    pub gpu_count: usize,
    /// GB per GPU.
    pub vram_gb: f64,
    pub cloud: String,
    /// USD per hour for all GPUs together; 0 where nothing is charged.
    pub price: f64,
    /// "high", "medium", "low" or "".
    pub stock: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Created, not reachable yet.
    Starting,
    Running,
    /// Still there and still charged for its disk, but not running.
    Stopped,
    Failed,
}

/// Where sshd of a machine listens.
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
    /// The unique name that it was created with.
    pub name: String,
    pub state: State,
    pub gpu: String,
    /// USD per hour now.
    pub price: f64,
    pub ssh: Option<SshAddress>,
    /// RFC 3339, as the provider tells it.
    pub created: String,
    /// Why it has not started, or not stayed; empty where the provider does not tell.
    pub why: String,
}

/// A service that lends machines. Every call is one exchange with it; waiting and retrying is done by the caller.
pub trait Provider: Send + Sync {
    fn name(&self) -> &str;

    /// How long it takes there for things to happen.
    fn patience(&self) -> Patience {
        Patience::from_environment()
    }

    /// What could be had now, best first.
    fn offers(&self, want: &Want) -> Result<Vec<Offer>>;

    /// Asks for a machine and returns at once. An error of kind `Timeout`, `Lost` or `Service` leaves open whether there
    /// is one now: look for its name before anything else.
    fn create(&self, name: &str, offer: &Offer, want: &Want, public_key: &str) -> Result<Description>;

    /// None when there is no such machine (any more).
    fn describe(&self, id: &str) -> Result<Option<Description>>;

    /// All machines of the account, other people's work included: names tell which are ours.
    fn list(&self) -> Result<Vec<Description>>;

    /// Asks for its end; a machine that is gone already is no error.
    fn terminate(&self, id: &str) -> Result<()>;

    /// What the machine has written so far, for people.
    fn logs(&self, id: &str) -> Result<String>;

    /// The way to a machine that runs; None while there is none yet. `key` is the private key of `public_key`.
    fn reach(&self, machine: &Description, key: &Path) -> Result<Option<Reached>>;

    /// The way to a machine that was reached before, by what was noted then.
    fn again(&self, address: &SshAddress, key: &Path, fingerprints: &[String]) -> Result<Arc<dyn Machine>>;

    /// The command that gives the machine back from inside; `worker` is the program there.
    fn give_back_command(&self, worker: &str) -> Option<String>;
}

/// The way to a machine.
pub struct Reached {
    pub machine: Arc<dyn Machine>,
    pub ssh: Option<SshAddress>,
    /// Of its host keys.
    pub fingerprints: Vec<String>,
}

/// The machine at an address, known by one of these host keys.
///
/// # Errors
/// An address that is none.
pub fn ssh(address: &SshAddress, key: &Path, fingerprints: &[String], timeout: Duration) -> Result<Arc<dyn Machine>> {
    let SshAddress { user, host, port } = address;
    let login = Login::made(user, host, *port, key.to_path_buf(), fingerprints.to_vec(), timeout)?;
    Ok(Arc::new(Ssh::new(login)))
}
