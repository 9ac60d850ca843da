//! A running job as a machine: every command is a step of the job. Steps end with their connection,
//! so that long-lived processes are started by the job's own script (`job.sh`).

use std::io::Read;
use std::os::unix::net::UnixStream;

use super::cluster::{Cluster, OWN_SESSION};
use super::job;
use crate::error::{Error, Result};
use crate::gpu::failure::Failure;
use crate::remote::{Listener, Machine, Output, quoted};

/// srun returns the same exit codes for its own failures and for the command's, so that the
/// command's code is sent on stderr.
const MARK: &str = "outlier-exit-code:";

/// The largest number of bytes of a stderr line that are buffered. Longer lines are passed on in
/// pieces.
const LONGEST_LINE: usize = 1 << 20;

pub(super) struct Allocation {
    cluster: Cluster,
    id: String,
    /// The job's name.
    name: String,
}

impl Allocation {
    pub(super) fn new(cluster: Cluster, id: &str, name: &str) -> Self {
        Self { cluster, id: id.to_string(), name: name.to_string() }
    }

    /// `--overlap`: in parallel with all other steps, on the same resources.
    fn step(&self, options: &str, command: &str) -> String {
        let srun = format!("srun --quiet --jobid={} --overlap --nodes=1 --ntasks=1 --mpi=none", quoted(&self.id));
        self.cluster.line(&format!("exec {OWN_SESSION} {srun} {options} /bin/sh -c {}", quoted(command)))
    }
}

impl Machine for Allocation {
    fn name(&self) -> String {
        format!("Slurm job {}", self.id)
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        let told = format!("/bin/sh -c {}; printf '{MARK}%d\\n' $? >&2", quoted(command));
        let mut errors = Errors::default();
        let code = self.cluster.machine().run(&self.step("", &told), input, &mut |piece| match piece {
            Output::Out(_) => output(piece),
            Output::Err(bytes) => errors.take(bytes, output),
        })?;
        if let Some(code) = errors.code {
            return Ok(code);
        }
        let last =
            String::from_utf8_lossy(if errors.line.is_empty() { &errors.last } else { &errors.line }).into_owned();
        let said = if last.trim().is_empty() { format!("exit code {code}") } else { last.trim().to_string() };
        Err(Error::of(Failure::StepEnded { machine: self.name(), last_words: said }))
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        // Without it srun passes whole lines only.
        self.cluster.machine().open(&self.step("--unbuffered", command))
    }

    fn keeper(&self) -> Option<String> {
        Some(job::folder(&self.name))
    }

    fn ended(&self) -> Option<String> {
        job::end(&self.cluster, &self.id)
    }
}

/// Extracts the exit code from the stderr of a step.
#[derive(Default)]
struct Errors {
    line: Vec<u8>,
    /// The last whole line before it.
    last: Vec<u8>,
    code: Option<i32>,
}

impl Errors {
    fn take(&mut self, bytes: &[u8], output: &mut Listener) -> Result<()> {
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            // The command's last line may lack its end.
            let mark = line.windows(MARK.len()).position(|window| window == MARK.as_bytes());
            let told = mark.and_then(|mark| {
                let number = String::from_utf8_lossy(&line[mark + MARK.len()..]).trim().parse().ok()?;
                Some((mark, number))
            });
            match told {
                Some((mark, code)) => {
                    self.code = Some(code);
                    if mark > 0 {
                        output(Output::Err(&line[..mark]))?;
                    }
                }
                None => {
                    output(Output::Err(&line))?;
                    self.last = line;
                }
            }
        }
        if self.line.len() > LONGEST_LINE {
            output(Output::Err(&self.line))?;
            self.line.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pieces: &[&str]) -> (String, Option<i32>) {
        let (mut errors, mut passed) = (Errors::default(), Vec::new());
        for piece in pieces {
            let taken = errors.take(piece.as_bytes(), &mut |piece| match piece {
                Output::Err(bytes) => crate::remote::keep(&mut passed, bytes),
                Output::Out(_) => panic!("there is only stderr"),
            });
            taken.unwrap();
        }
        (String::from_utf8(passed).unwrap(), errors.code)
    }

    #[test]
    fn the_exit_code_is_taken_out_of_stderr() {
        assert_eq!(taken(&["outlier-exit-code:0\n"]), (String::new(), Some(0)));
        assert_eq!(taken(&["a\nb\noutlier-ex", "it-code:17\n"]), ("a\nb\n".to_string(), Some(17)));
        assert_eq!(taken(&["no end of lineoutlier-exit-code:1\n"]), ("no end of line".to_string(), Some(1)));
        assert_eq!(taken(&["srun: error: gone\n"]), ("srun: error: gone\n".to_string(), None));
        let spoken = "they print outlier-exit-code: too\n";
        assert_eq!(taken(&[spoken]), (spoken.to_string(), None));
    }
}
