//! A step of a job for the user: a shell, or a command.

use std::process::Command;

use crate::remote::encoded;

/// Slurm's variables that describe the cluster. Others belong to a surrounding job.
const OF_THE_CLUSTER: [&str; 3] = ["SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS"];
/// Variables that do not belong into the environment of a job.
const SECRET: [&str; 3] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RUNPOD_API_KEY"];

fn options(job: &str) -> [String; 6] {
    let fixed = ["--quiet", "--overlap", "--nodes=1", "--ntasks=1", "--mpi=none"].map(str::to_string);
    let [quiet, overlap, nodes, tasks, mpi] = fixed;
    [quiet, format!("--jobid={job}"), overlap, nodes, tasks, mpi]
}

/// The step, started on this machine: the user's shell if no command is given.
pub fn here(job: &str, command: &[String]) -> Command {
    let mut step = Command::new("srun");
    step.args(options(job));
    let of_a_job = |name: &str| name.starts_with("SLURM_") && !OF_THE_CLUSTER.iter().any(|kept| name.starts_with(kept));
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| of_a_job(name) || SECRET.contains(&name.as_str())) {
        step.env_remove(name);
    }
    match command.is_empty() {
        true => step.args(["--pty", "/bin/sh", "-c", "exec \"${SHELL:-/bin/sh}\" -l"]),
        false => step.args(["/bin/sh", "-c", &command.join(" ")]),
    };
    step
}

/// The same as a line for any login shell of a login node.
pub fn there(job: &str, command: &[String]) -> String {
    let step = format!("exec srun {}", options(job).join(" "));
    match command.is_empty() {
        true => format!("{step} --pty $SHELL -l"),
        false => {
            format!("{step} /bin/sh -c 'eval \"$(printf %b \"$1\")\"' sh '{}'", encoded(&command.join(" ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_that_every_shell_understands() {
        assert!(there("7", &[]).ends_with("--jobid=7 --overlap --nodes=1 --ntasks=1 --mpi=none --pty $SHELL -l"));
        let line = there("7", &["echo".to_string(), "it's 100% $HOME!".to_string()]);
        assert!(line.ends_with("' sh 'echo it\\0047s 100\\0045 \\0044HOME\\0041'"), "{line}");
        let step = here("7", &["echo".to_string(), "a b".to_string()]);
        assert_eq!(step.get_args().last().unwrap(), "echo a b");
    }
}
