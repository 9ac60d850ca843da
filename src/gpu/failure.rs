//! What can go wrong with machines and their providers, with the words for it.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{self, Error, Kind};

const TRY_AGAIN: &str = "is the network reachable? try again in a minute";
const TRUSTED: &str = "is OUTLIER_RUNPOD_URL an address that you trust?";

#[derive(Debug)]
pub enum Failure {
    /// The ledger is a link, to this file.
    LedgerIsLink(PathBuf),
    Ledger {
        path: PathBuf,
        source: rusqlite::Error,
    },
    /// The table of the ledger lacks a column: another version of the program has made it.
    LedgerOfOthers {
        path: PathBuf,
        column: &'static str,
    },
    /// The ledger has no machine of this name.
    NotInLedger(String),
    /// Several open rows have the same id.
    SeveralWorkers {
        id: String,
        names: Vec<String>,
    },
    UnknownProvider(String),
    /// A word of a stored login that this version does not know.
    NoWay(String),
    /// Offers of the user's own machines were asked for.
    NothingToRent,

    /// The provider of this name has nothing that is wanted.
    NothingOnOffer(String),
    /// The provider has failed to create a machine, in its own words.
    NotCreated(String),
    /// USD per hour.
    TooExpensive {
        price: f64,
        max_price: f64,
    },
    Unaffordable {
        gpu: String,
        /// USD per hour.
        price: f64,
        hours: f64,
        /// USD that are left.
        left: f64,
    },
    /// The machine was gone while it was waited for. The last line of its log may say why.
    WentAway {
        last_line: Option<String>,
    },
    NotReached {
        waited: Duration,
        reason: Option<String>,
    },
    NotStarted {
        waited: Duration,
    },
    /// The machine stopped, for the reason that its provider gives.
    Stopped(Option<String>),
    /// A worker on a user's own machine has not confirmed its end.
    MayBeAtWork {
        worker: String,
        reason: String,
    },
    /// A rented machine has not certainly ended.
    MayBeRunning {
        id: String,
        /// A job of a cluster costs no money.
        costs: bool,
        reason: String,
    },
    StillListed(String),

    /// A machine lacks commands of Slurm.
    NoSlurm {
        machine: String,
        commands: Vec<String>,
    },
    /// A command on a machine of a cluster has not ended in time.
    CommandHangs {
        machine: String,
        what: String,
        waited: Duration,
    },
    CommandFailed {
        machine: String,
        code: i32,
        complaint: String,
    },
    ControllerSilent(String),
    /// A command of Slurm has failed. The job may have been accepted.
    SlurmFailed {
        command: &'static str,
        complaint: String,
    },
    /// `sbatch` refuses a job.
    JobRefused {
        complaint: String,
        kind: Kind,
        hint: &'static str,
    },
    NoJobId(String),
    NoQueueLine(String),
    StepEnded {
        machine: String,
        last_words: String,
    },

    /// The files that were searched for a key, besides the environment.
    NoKey {
        file: Option<PathBuf>,
    },
    BadKey,
    /// The key would be sent to this address.
    KeyTravels(String),
    RunPodClient(reqwest::Error),
    RunPodSilent(reqwest::Error),
    /// The connection was closed within an answer.
    RunPodCutOff {
        words: String,
        source: std::io::Error,
    },
    RunPodTooLong {
        most_mb: u64,
    },
    RunPodNotJson(String),
    /// An answer does not have the documented form. It has these keys.
    RunPodForm {
        what: &'static str,
        keys: String,
    },
    /// An answer of the service other than success.
    RunPodRefused {
        kind: Kind,
        message: &'static str,
        hint: &'static str,
        status: reqwest::StatusCode,
        detail: String,
    },
    EndlessList,
    NoPodId(String),
    NoPod,
    PodWithoutKey,
}

fn seconds(time: &Duration) -> u64 {
    time.as_secs()
}

/// Words after a colon, if there are any.
fn after_colon(words: Option<&String>) -> String {
    words.map_or_else(String::new, |words| format!(": {words}"))
}

impl error::Failure for Failure {
    fn told(&self) -> Error {
        let service = |message: String| Error::new(Kind::Service, message);
        match self {
            Self::LedgerIsLink(path) => {
                Error::bad_argument(format!("the ledger {} is a link, to a file that may be anybody's", path.display()))
                    .hint("move the file here in the place of the link")
            }
            Self::Ledger { path, source } => Error::new(Kind::Io, format!("the ledger {}: {source}", path.display()))
                .hint("no machine is created without it: is the disk full, or the file damaged?"),
            Self::LedgerOfOthers { path, column } => Error::new(
                Kind::VersionMismatch,
                format!("the ledger {} has no column \"{column}\": another version wrote it", path.display()),
            )
            .hint(
                "look at the provider's page for machines of this project and end them there, then move the file away: \
                 it is made anew",
            ),
            Self::NotInLedger(name) => Error::not_found(format!("the ledger has no machine \"{name}\"")),
            Self::SeveralWorkers { id, names } => {
                Error::bad_argument(format!("{} workers are known on {id}", names.len()))
                    .hint(format!("name one of them: {}", names.join(", ")))
            }
            Self::UnknownProvider(text) => Error::bad_argument(format!("no provider \"{text}\""))
                .hint("providers are \"local\", \"ssh\", \"slurm\" and \"runpod\""),
            Self::NoWay(word) => Error::bad_argument(format!("\"{word}\" is not a way into a machine")),
            Self::NothingToRent => {
                Error::bad_argument("a machine over SSH is one that you have: there is nothing to rent")
                    .hint("provision_gpu(#{ provider: \"ssh\", host: \"user@machine\" }) works on it")
            }
            Self::NothingOnOffer(provider) => {
                Error::new(Kind::NoCapacity, format!("{provider}: nothing on offer fits what is wanted")).hint(
                    "name other GPUs, another `cloud` or a higher `max_price`; `outlier offers` lists what there is",
                )
            }
            Self::NotCreated(reason) => Error::new(Kind::NoCapacity, reason),
            Self::TooExpensive { price, max_price } => Error::new(
                Kind::NoCapacity,
                format!("it costs ${price:.2}/h, more than `max_price` (${max_price:.2}/h)"),
            )
            .hint("raise `max_price`, or name other GPUs"),
            Self::Unaffordable { gpu, price, hours, left } => {
                let (needed, left) = (price * hours, left.max(0.0));
                Error::new(
                    Kind::OverBudget,
                    format!(
                        "{gpu} at ${price:.2}/h for about {hours:.2} h costs ${needed:.2}, more than `max_cost` leaves \
                         (${left:.2})"
                    ),
                )
                .hint("raise `max_cost`, or name a cheaper GPU")
            }
            Self::WentAway { last_line } => Error::new(
                Kind::Lost,
                format!("the machine went away while it started{}", after_colon(last_line.as_ref())),
            ),
            Self::NotReached { waited, reason } => {
                let (waited, reason) = (seconds(waited), after_colon(reason.as_ref()));
                Error::new(Kind::Lost, format!("it runs, but could not be reached for {waited} s{reason}"))
                    .hint("`outlier gpus logs ID` tells what it did; an image without sshd never can be reached")
            }
            Self::NotStarted { waited } => {
                Error::new(Kind::Lost, format!("it has not started within {} s", seconds(waited)))
                    .hint("this host is stuck: another may be had")
            }
            Self::Stopped(why) => Error::new(Kind::Lost, why.as_deref().unwrap_or("it stopped while it started")),
            Self::MayBeAtWork { worker, reason } => {
                service(format!("the worker {worker} may still be at work: {reason}"))
                    .hint(format!("`outlier gpus terminate {worker}` tries again when the machine can be reached"))
            }
            Self::MayBeRunning { id, costs, reason } => {
                let (costing, otherwise) = match costs {
                    true => (" and costing money", "end it in the provider's console".to_string()),
                    false => ("", format!("`scancel {id}` on the cluster does")),
                };
                service(format!("{id} may still be running{costing}: {reason}"))
                    .hint(format!("`outlier gpus terminate {id}` tries again; if that fails, {otherwise}"))
            }
            Self::StillListed(id) => service(format!("{id} is still listed")).hint("end it in the provider's console"),
            Self::NoSlurm { machine, commands } => {
                Error::not_found(format!("Slurm is not there: {machine} has no command {}", commands.join(", "))).hint(
                    "run this on a login node of the cluster (after `module load slurm` where that is needed), or name \
                     one: host: \"user@login\"",
                )
            }
            Self::CommandHangs { machine, what, waited } => {
                Error::new(Kind::Timeout, format!("{machine}: {what} has not ended within {} s", seconds(waited)))
                    .hint("does the same command stand still there when you log in?")
            }
            Self::CommandFailed { machine, code, complaint } => {
                service(format!("{machine}: a command failed with exit code {code}: {complaint}"))
            }
            Self::ControllerSilent(complaint) => {
                service(format!("the controller of Slurm does not answer: {complaint}"))
                    .hint("is `squeue` slow or silent too? try again later")
            }
            Self::SlurmFailed { command, complaint } => service(format!("{command}: {complaint}")),
            Self::JobRefused { complaint, kind, hint } => Error::new(*kind, format!("sbatch: {complaint}")).hint(*hint),
            Self::NoJobId(said) => service(format!("sbatch answered {said:?}, not with an id")),
            Self::NoQueueLine(line) => service(format!("squeue answered {line:?}, which is not what was asked for")),
            Self::StepEnded { machine, last_words } => {
                Error::new(Kind::Lost, format!("{machine}: the step ended before its command did: {last_words}"))
                    .hint("does the job still run (`squeue --me`)? its log is ~/.outlier/jobs/ID.log")
            }
            Self::NoKey { file } => {
                let file = file.as_ref().map_or_else(String::new, |file| format!(" and {}", file.display()));
                let message = format!("no RunPod API key: looked at RUNPOD_API_KEY in the environment, in .env{file}");
                Error::new(Kind::Auth, message)
                    .hint("make a key at RunPod, Settings, API Keys, and put RUNPOD_API_KEY=… into .env")
            }
            Self::BadKey => Error::new(Kind::Auth, "RUNPOD_API_KEY holds blanks or other characters that no key has")
                .hint("copy the key again, without quotes and line breaks"),
            Self::KeyTravels(address) => Error::new(
                Kind::Auth,
                format!("OUTLIER_RUNPOD_URL is \"{address}\": the key does not travel there"),
            )
            .hint("give an address that begins with https://, or one of this computer; unset it to ask RunPod itself"),
            Self::RunPodClient(source) => Error::new(Kind::Io, format!("starting the RunPod client: {source}")),
            Self::RunPodSilent(source) => {
                let kind = if source.is_timeout() { Kind::Timeout } else { Kind::Lost };
                // The message may contain the address, but never the key, which is in a header.
                Error::new(kind, format!("RunPod does not answer: {}", root(source))).hint(TRY_AGAIN)
            }
            Self::RunPodCutOff { words, source } => {
                let late = source.kind() == std::io::ErrorKind::TimedOut;
                let kind = if late { Kind::Timeout } else { Kind::Lost };
                Error::new(kind, format!("RunPod's answer broke off: {words}")).hint(TRY_AGAIN)
            }
            Self::RunPodTooLong { most_mb } => {
                service(format!("RunPod sent an answer of more than {most_mb} MB")).hint(TRUSTED)
            }
            Self::RunPodNotJson(complaint) => {
                service(format!("RunPod sent an answer that is not JSON, or too much of it: {complaint}")).hint(TRUSTED)
            }
            Self::RunPodForm { what, keys } => service(format!("RunPod: {what} has an unexpected form (keys: {keys})")),
            Self::RunPodRefused { kind, message, hint, status, detail } => {
                Error::new(*kind, format!("RunPod: {message} ({status}): {detail}")).hint(*hint)
            }
            Self::EndlessList => {
                service("RunPod: the list of pods has no end".to_string()).hint("try again in a minute")
            }
            Self::NoPodId(text) => Error::bad_argument(format!("\"{text}\" is not the id of a pod"))
                .hint("`outlier gpus` lists the machines of this project"),
            Self::NoPod => Error::not_found("RUNPOD_POD_ID holds no id of a pod: this is no pod"),
            Self::PodWithoutKey => Error::new(Kind::Auth, "the pod has no key for itself"),
        }
    }

    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ledger { source, .. } => Some(source),
            Self::RunPodClient(source) | Self::RunPodSilent(source) => Some(source),
            Self::RunPodCutOff { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The innermost error, in words.
pub(super) fn root(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), root)
}
