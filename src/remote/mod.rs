//! Machines that commands run on and files go to: this one, or one over SSH.

use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::Result;
use crate::progress::Progress;

/// A piece of what a command wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    Out(&'a [u8]),
    Err(&'a [u8]),
}

/// Where commands run. Commands are lines for `/bin/sh -c`; paths on the machine may start with `~/`.
pub trait Machine: Send + Sync {
    /// For messages: `root@203.0.113.7:22` or `this machine`.
    fn name(&self) -> String;

    /// Runs `command` with `input` on its stdin; what it writes arrives as it comes. Gives its exit code.
    fn run(&self, command: &str, input: &[u8], output: &mut dyn FnMut(Output)) -> Result<i32>;

    /// Starts `command` and gives its stdin and stdout as one stream: closing it ends the command's stdin, end of file
    /// means that the command or the connection has ended.
    fn open(&self, command: &str) -> Result<UnixStream>;

    /// Copies one file to the machine: continues what an earlier attempt left, verifies the SHA-256, then renames.
    fn upload(&self, from: &Path, to: &str, progress: &dyn Progress) -> Result<()>;

    /// Copies one file from the machine, as `upload` does the other way.
    fn download(&self, from: &str, to: &Path, progress: &dyn Progress) -> Result<()>;
}

/// Runs `command` and collects what it writes to stdout, or fails with what it wrote to stderr.
pub fn output(machine: &dyn Machine, command: &str, input: &[u8]) -> Result<String> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = machine.run(command, input, &mut |piece| match piece {
        Output::Out(bytes) => out.extend_from_slice(bytes),
        Output::Err(bytes) => err.extend_from_slice(bytes),
    })?;
    if code == 0 {
        return Ok(String::from_utf8_lossy(&out).into_owned());
    }
    let said = String::from_utf8_lossy(&err);
    let last = said.trim().lines().next_back().unwrap_or("no message").to_string();
    Err(crate::error::Error::new(
        crate::error::Kind::Service,
        format!("{}: a command failed with exit code {code}: {last}", machine.name()),
    ))
}
