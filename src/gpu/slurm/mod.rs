//! Slurm: a machine is a job on a cluster where the user has an account, managed by the cluster's
//! own commands `sbatch`, `squeue`, `scontrol`, `scancel` and `srun` (20.11 or later), here or on a
//! login node over SSH.
//!
//! A job in the queue is alive, and any other job has ended. Costs are not known.

mod allocation;
mod cluster;
mod job;
pub mod step;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::bounded::{Limits, text_of, within};
use super::failure::Failure;
use super::id::ProviderId;
use super::patience::Patience;
use super::provider::{Description, Offer, Provider, Reached, SshAddress, State, Want, ssh};
use super::way::Way;
use crate::error::{Error, Kind, Result};
use crate::remote::{Here, Login, Machine, Ssh, quoted};

use allocation::Allocation;
use cluster::{Cluster, complaint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A step of a ready job starts and ends within this time.
const STEP: Limits = cluster::limits(60);
/// A cancelled job leaves the queue within this time, or is left to Slurm, once the user has asked
/// to stop. It costs no money that this program would have to account for.
const HURRY: Duration = Duration::from_secs(20);
/// The first reason of a new job may change: a hopeless reason counts after this many queries.
const LOOKS: u32 = 12;

pub struct Slurm {
    id: ProviderId,
    cluster: Cluster,
    /// Jobs that can never start, with their reason and the time since when.
    hopeless: Mutex<HashMap<String, (String, Instant)>>,
}

/// The login to the login node at the end of this way.
///
/// # Errors
/// The errors of `~/.ssh/config`.
pub fn login(way: &Way) -> Result<Login> {
    way.target().login(CONNECT_TIMEOUT)
}

impl Slurm {
    /// Opens the cluster of a login node; without a way there, that of this computer.
    ///
    /// # Errors
    /// If it is not available.
    pub fn new(way: Option<Way>) -> Result<Self> {
        let cluster = match way.as_ref().map(login).transpose()? {
            None => Cluster::new(Arc::new(Here))?,
            Some(login) => match Cluster::new(Arc::new(Ssh::new(login.clone()))) {
                // Some sites put Slurm on the path in the profile, which only a login shell reads.
                Err(missing) if matches!(missing.failure(), Some(Failure::NoSlurm { .. })) => {
                    Cluster::new(Arc::new(Ssh::new(login).with_profile())).map_err(|_| missing)?
                }
                other => other?,
            },
        };
        Ok(Self { id: ProviderId::Slurm(way), cluster, hopeless: Mutex::default() })
    }

    /// True if a job has been hopeless for this reason long enough.
    fn is_final(&self, id: &str, why: &str) -> bool {
        let mut hopeless = self.hopeless.lock().expect("no panic under this lock");
        let new = || (why.to_string(), Instant::now());
        let (reason, since) = hopeless.entry(id.to_string()).or_insert_with(new);
        if reason.as_str() != why {
            (*reason, *since) = new();
        }
        since.elapsed() > LOOKS * self.patience().poll
    }
}

/// An offer of GPUs in sbatch's syntax.
fn offer(provider: &ProviderId) -> Offer {
    Offer {
        provider: provider.clone(),
        gpu: String::new(),
        gpu_count: 0,
        vram_gb: 0.0,
        cloud: String::new(),
        price: 0.0,
        stock: String::new(),
    }
}

impl Provider for Slurm {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    /// A job may wait for days.
    fn patience(&self) -> Patience {
        // The cluster has chosen the host, and a job that was ended was ended on purpose.
        let usual = Patience::from_environment();
        Patience { start: Duration::MAX, hosts: 1, hurry: usual.end.min(HURRY), ..usual }
    }

    /// One offer for each requested GPU type, as it is written and in lower case, which is usual.
    /// sbatch reports whether the cluster has it.
    fn offers(&self, want: &Want) -> Result<Vec<Offer>> {
        let mut kinds: Vec<String> = want.gpus.iter().flat_map(|kind| [kind.clone(), kind.to_lowercase()]).collect();
        if kinds.is_empty() {
            kinds.push(String::new());
        }
        let gres = kinds.iter().map(|kind| job::gres(want, kind).unwrap_or_default());
        let mut offers: Vec<Offer> =
            gres.map(|gpu| Offer { gpu, gpu_count: want.gpu_count, ..offer(&self.id) }).collect();
        offers.dedup();
        Ok(offers)
    }

    fn create(&self, name: &str, offer: &Offer, want: &Want, _: &str) -> Result<Description> {
        let id = self.cluster.submit(&job::options(name, offer, want), &job::script(name))?;
        Ok(Description {
            id,
            name: name.to_string(),
            state: State::Starting,
            gpu: offer.gpu.clone(),
            price: 0.0,
            ssh: None,
            created: String::new(),
            why: String::new(),
        })
    }

    fn describe(&self, id: &str) -> Result<Option<Description>> {
        let mut found = job::find(&self.cluster, id)?;
        if let Some(machine) = &mut found
            && machine.state == State::Failed
            && !self.is_final(id, &machine.why)
        {
            (machine.state, machine.why) = (State::Starting, String::new());
        }
        Ok(found)
    }

    /// The jobs of this user only, because a cluster has thousands of others.
    fn list(&self) -> Result<Vec<Description>> {
        let finished =
            self.cluster.ask(&format!("squeue --noheader --user=\"$(id -u)\" --format='{}'", job::COLUMNS))?;
        if finished.code != 0 {
            return Err(Error::of(Failure::SlurmFailed { command: "squeue", complaint: complaint(&finished) }));
        }
        finished.out.lines().filter(|line| !line.trim().is_empty()).map(job::description).collect()
    }

    fn terminate(&self, id: &str) -> Result<()> {
        let finished = self.cluster.ask(&format!("scancel {}", quoted(id)))?;
        match finished.code {
            0 => Ok(()),
            _ if finished.err.contains("Invalid job id") || finished.err.contains("already completing") => Ok(()),
            _ => Err(Error::of(Failure::SlurmFailed { command: "scancel", complaint: complaint(&finished) })),
        }
    }

    /// The output of the job, and the log of its worker, which is added to it at the end.
    fn logs(&self, id: &str) -> Result<String> {
        let path = format!("\"$HOME\"/.outlier/jobs/{}.log", quoted(id));
        let mut text = self.cluster.output(&format!("cat {path}"), "reading the job's log")?;
        if let Some(machine) = self.describe(id)?.filter(|machine| machine.state == State::Running) {
            let log = quoted(&format!("{}/worker.log", job::folder(&machine.name)));
            let step: Arc<dyn Machine> = Arc::new(Allocation::new(self.cluster.clone(), id, &machine.name));
            let read = within(&STEP, &step, &format!("cat {log} 2>/dev/null || true"), "", "a step in the job")?;
            text += &text_of(&*step, read)?;
        }
        Ok(text)
    }

    /// The first step may wait for the node and for the job's script.
    fn reach(&self, machine: &Description, _: &Path) -> Result<Option<Reached>> {
        let step: Arc<dyn Machine> = Arc::new(Allocation::new(self.cluster.clone(), &machine.id, &machine.name));
        let ready = format!("test -d {}", quoted(&job::folder(&machine.name)));
        match within(&STEP, &step, &ready, "", "a first step in the job") {
            Ok(finished) if finished.code == 0 => {
                Ok(Some(Reached { machine: step, ssh: None, fingerprints: Vec::new() }))
            }
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind, Kind::Lost | Kind::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Only the id of a job is recorded, and `reach` is used. An address leads to the machine
    /// there.
    fn again(&self, address: &SshAddress, key: &Path, fingerprints: &[String]) -> Result<Arc<dyn Machine>> {
        ssh(address, key, fingerprints, CONNECT_TIMEOUT)
    }

    /// The job ends with its worker.
    fn give_back_command(&self, _: &str) -> Option<String> {
        None
    }
}
