//! A job: its options, its script, its state in the queue, and its end.

use super::cluster::{Cluster, complaint};
use crate::error::{Error, Result};
use crate::gpu::failure::Failure;
use crate::gpu::provider::{Description, Offer, State, Want};
use crate::remote::quoted;

const SCRIPT: &str = include_str!("job.sh");
/// A job that is not used for this many seconds ends itself. Sending the program takes part of it.
const IDLE_SECONDS: u32 = 1800;
/// The folder of a job on its node, on a local disk, because sockets and locks may not work on a
/// shared one.
const FOLDER_VARIABLE: &str = "OUTLIER_SLURM_FOLDER";
const FOLDER: &str = "/tmp";

/// The columns of squeue. The name is the last one, because it may contain anything.
pub(super) const COLUMNS: &str = "%i|%T|%r|%b|%V|%j";

/// Reasons for which a job waits for ever, with hints.
const HOPELESS: &[(&str, &str)] = &[
    ("PartitionConfig", "no node of the partition has all that is asked for: lower `cpus`, `memory_gb` or `gpu_count`"),
    ("PartitionNodeLimit", "no node of the partition may have all that is asked for"),
    ("PartitionTimeLimit", "lower `max_hours`: `sinfo -o '%P %l'` lists what partitions allow"),
    ("BadConstraints", "no node of the cluster fits: `sinfo -o '%N %f'` lists the features for `constraint`"),
    ("InvalidAccount", "give another `account`"),
    ("InvalidQOS", "give another `qos`"),
    ("AccountNotAllowed", "the partition does not take this account"),
    ("QOSNotAllowed", "the partition does not take this `qos`"),
    ("AssocMaxWallDurationPerJobLimit", "lower `max_hours`"),
    ("QOSMaxWallDurationPerJobLimit", "lower `max_hours`"),
    ("QOSMaxGRESPerJob", "lower `gpu_count`"),
    ("QOSMaxCpuPerJobLimit", "lower `cpus`"),
    ("QOSMaxMemoryPerJob", "lower `memory_gb`"),
    ("DependencyNeverSatisfied", "it depends on a job that failed"),
];

/// The folder of a job on its node, with the worker's socket, lock and log.
pub(super) fn folder(name: &str) -> String {
    let base = std::env::var(FOLDER_VARIABLE).ok().filter(|folder| folder.starts_with('/'));
    format!("{}/{name}", base.as_deref().unwrap_or(FOLDER).trim_end_matches('/'))
}

/// The script of the job `name`.
pub(super) fn script(name: &str) -> String {
    let folder = quoted(&folder(name));
    let set =
        format!("folder={folder}\nmarker=\"$HOME/.outlier/jobs/$SLURM_JOB_ID.exit\"\nidle_seconds={IDLE_SECONDS}");
    format!("#!/bin/sh\n{set}\n{SCRIPT}")
}

/// GPUs in sbatch's syntax; none if 0 are requested.
pub(super) fn gres(want: &Want, gpu: &str) -> Option<String> {
    match (&want.job.gres, want.gpu_count, gpu) {
        (Some(gres), ..) => Some(gres.clone()),
        (None, 0, _) => None,
        (None, count, "") => Some(format!("gpu:{count}")),
        (None, count, kind) => Some(format!("gpu:{kind}:{count}")),
    }
}

/// The options of sbatch. There is one node, because the worker is one process.
pub(super) fn options(name: &str, offer: &Offer, want: &Want) -> String {
    let minutes = (60.0 * want.max_hours).ceil().max(1.0);
    let mut options = format!("--job-name={} --time={minutes:.0} --nodes=1 --ntasks=1 --no-requeue", quoted(name));
    let job = &want.job;
    let named = [
        ("partition", job.partition.clone()),
        ("account", job.account.clone()),
        ("qos", job.qos.clone()),
        ("gres", (!offer.gpu.is_empty()).then(|| offer.gpu.clone())),
        ("constraint", job.constraint.clone()),
        ("cpus-per-task", job.cpus.map(|count| count.to_string())),
        ("mem", job.memory_gb.map(|gb| format!("{gb}G"))),
    ];
    for (option, value) in named {
        if let Some(value) = value {
            options += &format!(" --{option}={}", quoted(&value));
        }
    }
    options
}

/// Parses a line of squeue with `COLUMNS`.
pub(super) fn description(line: &str) -> Result<Description> {
    let parts: Vec<&str> = line.trim_end().splitn(6, '|').collect();
    let [id, status, reason, gres, created, name] = parts[..] else {
        return Err(Error::of(Failure::NoQueueLine(line.to_string())));
    };
    let hopeless = HOPELESS.iter().find(|(known, _)| *known == reason);
    let (state, why) = match (status, hopeless) {
        ("RUNNING", _) => (State::Running, String::new()),
        ("PENDING", Some((_, advice))) => (State::Failed, format!("it can never start ({reason}): {advice}")),
        ("COMPLETING" | "SPECIAL_EXIT" | "STOPPED", _) => (State::Stopped, format!("it is {status}")),
        (_, _) if matches!(reason, "None" | "") => (State::Starting, String::new()),
        (_, _) => (State::Starting, format!("it waits in the queue ({reason})")),
    };
    let gpu = if gres == "N/A" { "" } else { gres.trim_start_matches("gres:") };
    Ok(Description {
        id: id.to_string(),
        name: name.to_string(),
        state,
        gpu: gpu.to_string(),
        price: 0.0,
        ssh: None,
        created: created.to_string(),
        why,
    })
}

/// The job in the queue; None if it has left it, or never was in it.
pub(super) fn find(cluster: &Cluster, id: &str) -> Result<Option<Description>> {
    let finished = cluster.ask(&format!("squeue --noheader --jobs={} --format='{COLUMNS}'", quoted(id)))?;
    match finished.code {
        0 => finished.out.lines().find(|line| !line.trim().is_empty()).map(description).transpose(),
        _ if finished.err.contains("Invalid job id") => Ok(None),
        _ => Err(Error::of(Failure::SlurmFailed { command: "squeue", complaint: complaint(&finished) })),
    }
}

/// How the job ended; None if it is in the queue or unknown.
pub(super) fn end(cluster: &Cluster, id: &str) -> Option<String> {
    if !matches!(find(cluster, id), Ok(None)) {
        return None;
    }
    // The controller forgets a job after a while. Then only the output of the script is left.
    let shown = cluster.ask(&format!("scontrol --oneliner show job {}", quoted(id))).ok();
    let field = |name: &str| {
        let text = &shown.as_ref().filter(|shown| shown.code == 0)?.out;
        text.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_string)
    };
    let code = || {
        let marker = format!("cat \"$HOME\"/.outlier/jobs/{}.exit", quoted(id));
        let marker = cluster.output(&marker, "a look for the job's exit code");
        marker.ok().map(|code| format!("exit code {}", code.trim()))
    };
    let state = field("JobState=").or_else(code).unwrap_or_else(|| "it left the queue".to_string());
    let advice = match state.as_str() {
        "TIMEOUT" => "; its time limit is `max_hours`",
        "OUT_OF_MEMORY" => "; ask for more `memory_gb`, or lower `memory_budget`",
        "CANCELLED" => "; somebody else cancelled it",
        _ => "",
    };
    Some(format!("the job has ended ({state}){advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::gpu::JobOptions;

    #[test]
    fn what_the_queue_says_is_understood() {
        let of = |line: &str| description(line).unwrap();
        let running = of("7|RUNNING|None|gres:gpu:a100:2|2026-11-25T22:36:02|outlier-x|y");
        assert_eq!((running.id.as_str(), running.name.as_str()), ("7", "outlier-x|y"));
        assert_eq!((running.state, running.gpu.as_str(), running.why.as_str()), (State::Running, "gpu:a100:2", ""));
        let waits = of("8|PENDING|Resources|N/A|2026-11-25T22:36:02|outlier-x");
        assert_eq!((waits.state, waits.why.as_str()), (State::Starting, "it waits in the queue (Resources)"));
        let never = of("8|PENDING|PartitionTimeLimit|N/A|2026-11-25T22:36:02|outlier-x");
        assert_eq!(never.state, State::Failed);
        assert!(never.why.contains("lower `max_hours`"), "{}", never.why);
        assert_eq!(of("9|COMPLETING|None|N/A|t|n").state, State::Stopped);
        assert_eq!(description("slurm is down").unwrap_err().kind, Kind::Service);
    }

    #[test]
    fn what_is_wanted_becomes_options() {
        let want = Want {
            gpus: vec!["a100".to_string()],
            gpu_count: 2,
            max_hours: 1.51,
            job: JobOptions {
                partition: Some("gpu".to_string()),
                cpus: Some(8),
                memory_gb: Some(64),
                constraint: Some("a100&nvlink".to_string()),
                ..JobOptions::default()
            },
            ..Want::default()
        };
        let gpu = gres(&want, "a100").unwrap();
        let offer = Offer { gpu, ..super::super::offer(&crate::gpu::ProviderId::Slurm(None)) };
        assert_eq!(
            options("outlier-r-1", &offer, &want),
            "--job-name='outlier-r-1' --time=91 --nodes=1 --ntasks=1 --no-requeue --partition='gpu' \
             --gres='gpu:a100:2' --constraint='a100&nvlink' --cpus-per-task='8' --mem='64G'"
        );
        assert_eq!(gres(&Want { gpu_count: 0, ..want.clone() }, "a100"), None);
        let named = JobOptions { gres: Some("gpu:h100:4".to_string()), ..JobOptions::default() };
        assert_eq!(gres(&Want { job: named, ..want }, "").unwrap(), "gpu:h100:4");
    }
}
