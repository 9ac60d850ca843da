//! Slurm's commands, run on this machine or on a login node over SSH.

use std::sync::Arc;
use std::time::Duration;

use super::super::bounded::{Limits, text_of, within};
use crate::error::{Error, Kind, Result};
use crate::gpu::failure::Failure;
use crate::progress::{doze, interrupt_requested};
use crate::remote::{Finished, Machine};

/// The prefix of every command. Variables of a surrounding job would be taken for options, and
/// secrets do not belong into the environment of a job.
const CLEAN: &str = r#"for v in $(env | sed -n 's/^\(SLURM_[A-Za-z0-9_]*\)=.*/\1/p'); do
case $v in SLURM_CONF*|SLURM_JWT|SLURM_CLUSTERS) ;; *) unset "$v" ;; esac; done
unset HF_TOKEN HUGGING_FACE_HUB_TOKEN RUNPOD_API_KEY
"#;
/// Ctrl-C at a terminal reaches all processes of its session. This program decides how these end.
pub(super) const OWN_SESSION: &str = "setsid -w";
/// The needed commands of Slurm.
const COMMANDS: [&str; 5] = ["sbatch", "squeue", "scontrol", "scancel", "srun"];
/// Messages of a controller that does not answer now, which says nothing about the request.
const BUSY: &[&str] = &[
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection reset",
    "Communication connection failure",
    "Transport endpoint",
    "Zero Bytes were transmitted",
    "Unexpected message received",
];
/// Number of queries after which the controller counts as unavailable.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);
/// Time limit of a command of Slurm. With a busy controller it gives up earlier by itself.
const COMMAND: Limits = limits(180);

/// Limits of a command that may take so many seconds.
pub(super) const fn limits(seconds: u64) -> Limits {
    Limits { whole: Duration::from_secs(seconds), at_work: Duration::from_secs(2), last: Duration::from_secs(8) }
}

/// A cluster, as its users see it.
#[derive(Clone)]
pub(super) struct Cluster {
    commands: Arc<dyn Machine>,
}

impl Cluster {
    /// Opens the cluster whose commands `commands` runs. The cluster is not contacted.
    ///
    /// # Errors
    /// If it does not run commands as they are, or lacks one of Slurm's.
    pub(super) fn new(commands: Arc<dyn Machine>) -> Result<Self> {
        let cluster = Self { commands };
        let test = COMMANDS.map(|name| format!("command -v {name} >/dev/null 2>&1 || echo {name}")).join("; ");
        let missing = cluster.run(&test, "", "a look for the commands of Slurm")?.out;
        let commands: Vec<String> = missing.split_whitespace().map(str::to_string).collect();
        match commands.is_empty() {
            true => Ok(cluster),
            false => Err(Error::of(Failure::NoSlurm { machine: cluster.commands.name(), commands })),
        }
    }

    pub(super) fn machine(&self) -> &Arc<dyn Machine> {
        &self.commands
    }

    /// A line for the shell there.
    pub(super) fn line(&self, command: &str) -> String {
        format!("{CLEAN}{command}")
    }

    fn run(&self, command: &str, input: &str, what: &str) -> Result<Finished> {
        within(&COMMAND, &self.commands, &self.line(command), input, what)
    }

    /// The stdout of a command of the shell there.
    ///
    /// # Errors
    /// If it fails, and as `within`.
    pub(super) fn output(&self, command: &str, what: &str) -> Result<String> {
        text_of(&**self.machine(), within(&COMMAND, self.machine(), command, "", what)?)
    }

    /// Runs a query, which is repeated if the controller is busy, unless the user has asked to
    /// stop.
    pub(super) fn ask(&self, command: &str) -> Result<Finished> {
        let mut tries = 1;
        loop {
            let name = command.split_whitespace().next().unwrap_or_default();
            let finished = self.run(&format!("exec {OWN_SESSION} {command}"), "", name)?;
            if finished.code == 0 || !is_busy(&finished.err) {
                return Ok(finished);
            }
            if tries == TRIES || interrupt_requested() {
                return Err(Error::of(Failure::ControllerSilent(complaint(&finished))));
            }
            doze(PAUSE * tries, interrupt_requested);
            tries += 1;
        }
    }

    /// Submits a job once, and returns its id.
    pub(super) fn submit(&self, options: &str, script: &str) -> Result<String> {
        let command = format!(
            "mkdir -p \"$HOME\"/.outlier/jobs && cd && exec {OWN_SESSION} sbatch --parsable \
             --output=\"$HOME\"/.outlier/jobs/%j.log {options}"
        );
        let finished = self.run(&command, script, "sbatch")?;
        if finished.code != 0 {
            return Err(refused(&finished));
        }
        // With several clusters the name of the cluster follows.
        let id = finished.out.trim().lines().next_back().unwrap_or_default().split(';').next().unwrap_or_default();
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_digit()) {
            return Err(Error::of(Failure::NoJobId(finished.out.trim().to_string())));
        }
        Ok(id.to_string())
    }
}

pub(super) fn is_busy(said: &str) -> bool {
    BUSY.iter().any(|busy| said.contains(busy))
}

/// The error message of the command in one line, without its own name.
pub(super) fn complaint(finished: &Finished) -> String {
    let plain = |line: &str| {
        let line = line.trim();
        let said = line.split_once(": error: ").or_else(|| line.split_once(": fatal: ")).map_or(line, |(_, said)| said);
        said.trim_start_matches("Batch job submission failed: ").to_string()
    };
    let mut lines: Vec<String> = finished.err.lines().map(plain).filter(|line| !line.is_empty()).collect();
    lines.dedup();
    if lines.is_empty() { format!("exit code {}", finished.code) } else { lines.join("; ") }
}

/// sbatch's refusals: part of the message, the kind of error, and a hint.
const REFUSALS: &[(&str, Kind, &str)] = &[
    (
        "stablish a configuration source",
        Kind::NotFound,
        "this machine has Slurm's commands and no cluster: run on a login node, or give `host`",
    ),
    (
        "nvalid account",
        Kind::Auth,
        "`sacctmgr show associations user=$USER` lists the accounts and partitions you may use; give `account`",
    ),
    ("not available now", Kind::NoCapacity, "the partition is down or too small for this: `sinfo -s` lists them"),
    ("artition", Kind::BadArgument, "`sinfo -s` lists the partitions; give `partition`"),
    (
        "nvalid qos",
        Kind::BadArgument,
        "`sacctmgr show associations user=$USER format=account,qos` lists them; give `qos`",
    ),
    ("nvalid feature", Kind::BadArgument, "`sinfo -o '%N %f'` lists the features of the nodes; give `constraint`"),
    ("ermission denied", Kind::Auth, "ask those who run the cluster for an account on it"),
    ("not permitted", Kind::Auth, "ask those who run the cluster, or give another `partition` or `account`"),
    (
        "olicy",
        Kind::NoCapacity,
        "a limit of the account: wait for your other jobs, ask for less, or give another `account` or `qos`",
    ),
    ("--time", Kind::BadArgument, "`max_hours` becomes the time limit of the job"),
    ("ime limit", Kind::BadArgument, "lower `max_hours`: `sinfo -o '%P %l'` lists what partitions allow"),
    (
        "resource (gres)",
        Kind::NoCapacity,
        "`sinfo -o '%P %G'` lists the GPUs; give `gres: \"gpu:TYPE:1\"`, or `gpu_count: 0` for none",
    ),
    ("emory specification", Kind::NoCapacity, "lower `memory_gb`: `sinfo -o '%P %m'` lists the memory of nodes in MB"),
    (
        "not available",
        Kind::NoCapacity,
        "no node of the partition has all of it: `sinfo -o '%P %G %c %m'` lists GPUs, cores and memory",
    ),
];

/// An error of kind `Service` means that the job may have been accepted.
fn refused(finished: &Finished) -> Error {
    let complaint = complaint(finished);
    if is_busy(&finished.err) || !finished.err.contains("sbatch: ") {
        return Error::of(Failure::SlurmFailed { command: "sbatch", complaint });
    }
    let known = REFUSALS.iter().find(|(part, ..)| complaint.contains(part)).map(|(_, kind, hint)| (*kind, *hint));
    let (kind, hint) = known.unwrap_or((Kind::BadArgument, "`man sbatch` tells what it means"));
    Error::of(Failure::JobRefused { complaint, kind, hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(err: &str) -> Error {
        refused(&Finished { code: 1, out: String::new(), err: err.to_string() })
    }

    #[test]
    fn refusals_say_what_to_do() {
        let error = said(
            "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
        );
        assert_eq!(error.kind, Kind::BadArgument);
        assert_eq!(error.message, "sbatch: invalid partition specified: nope; Invalid partition name specified");
        assert!(error.hint.unwrap().contains("sinfo -s"));
        let cases = [
            ("Batch job submission failed: Requested node configuration is not available", Kind::NoCapacity),
            ("Invalid generic resource (gres) specification", Kind::NoCapacity),
            ("Batch job submission failed: Invalid account or account/partition combination specified", Kind::Auth),
            ("Batch job submission failed: Invalid qos specification", Kind::BadArgument),
            (
                "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
                Kind::NoCapacity,
            ),
            ("Batch job submission failed: Invalid feature specification", Kind::BadArgument),
            ("Invalid --time specification", Kind::BadArgument),
        ];
        for (text, kind) in cases {
            let error = said(&format!("sbatch: error: {text}\n"));
            assert_eq!(error.kind, kind, "{text}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn what_is_open_stays_open() {
        for err in [
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "",
        ] {
            assert_eq!(said(err).kind, Kind::Service, "{err}");
        }
    }
}
