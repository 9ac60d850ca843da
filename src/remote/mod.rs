//! Machines that run commands and receive files: this one, or one over SSH.

mod auth;
mod config;
mod failure;
mod here;
mod keys;
mod known_hosts;
mod login;
mod names;
mod part;
mod pump;
mod refused;
mod room;
mod shell;
mod ssh;
mod sync;
mod target;
mod this;
mod transfer;
pub mod trust;
mod wildcard;

use std::io::Read;
use std::os::unix::net::UnixStream;

use crate::error::{Error, Result};

pub use failure::Failure;
pub use here::{Here, HereGrouped};
pub use keys::key_pair;
pub use login::{HostKey, Key, Login, SshTarget};
pub use names::{accepted, inside, sendable, to_receive, to_send};
pub use room::check as check_room;
pub use shell::encoded;
pub use ssh::Ssh;
pub use sync::{Rules, SyncReport, sync};
pub use target::Target;
pub use this::{Identity, WHO, identity};
pub use transfer::{again, download, upload};

/// The most bytes of a command's output that are kept in memory, for stdout and for stderr.
pub const MOST_SAID: usize = 64 << 20;

/// Receives the output of a command, and an empty piece now and then while it is silent, if that
/// can be noticed. An error ends the command.
pub type Listener<'a> = dyn FnMut(Output) -> Result<()> + 'a;

/// A piece of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    Out(&'a [u8]),
    Err(&'a [u8]),
}

/// A machine that runs commands, which are lines for `/bin/sh -c`.
pub trait Machine: Send + Sync {
    /// The name for messages: `root@203.0.113.7:22` or `this machine`.
    fn name(&self) -> String;

    /// Runs `command` with `input` on its stdin and passes its output on as it comes. Returns its
    /// exit code, or 128 plus the signal that ended it.
    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32>;

    /// Starts `command` and returns its stdin and stdout as one stream. Closing it closes the
    /// command's stdin; its end means that the command or the connection has ended.
    fn open(&self, command: &str) -> Result<UnixStream>;

    /// If nothing that a connection starts outlives it: a folder there, whose watcher runs the
    /// script `start` in any folder that appears in it by `/bin/sh`.
    fn keeper(&self) -> Option<String> {
        None
    }

    /// True if it is this computer under any name. A machine that cannot be distinguished from it
    /// counts as it.
    fn is_here(&self) -> bool {
        false
    }

    /// How it ended, if it has certainly ended. None if it may only be unreachable.
    fn ended(&self) -> Option<String> {
        None
    }
}

/// The result of a command.
pub struct Finished {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// The last line with an error message.
    pub fn complaint(&self) -> &str {
        let last = |text: &str| text.trim().lines().next_back().is_some();
        let text = if last(&self.err) { &self.err } else { &self.out };
        text.trim().lines().next_back().unwrap_or("no message")
    }
}

/// Runs `command` without input and collects its output.
pub fn finish(machine: &dyn Machine, command: &str) -> Result<Finished> {
    collect(machine, command, &mut std::io::empty())
}

/// Runs `command` and collects its output.
///
/// # Errors
/// If there is more than `MOST_SAID`.
pub fn collect(machine: &dyn Machine, command: &str, input: &mut (dyn Read + Send)) -> Result<Finished> {
    collect_while(machine, command, input, &|| true)
}

/// Runs `command` and collects its output. The command is ended once it is not `wanted` any more.
///
/// # Errors
/// If there is more than `MOST_SAID`, and `interrupted` where it was ended.
pub fn collect_while(
    machine: &dyn Machine,
    command: &str,
    input: &mut (dyn Read + Send),
    wanted: &dyn Fn() -> bool,
) -> Result<Finished> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = machine.run(command, input, &mut |piece| match piece {
        _ if !wanted() => Err(Error::interrupted()),
        Output::Out(bytes) => keep(&mut out, bytes),
        Output::Err(bytes) => keep(&mut err, bytes),
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Finished { code, out: text(out), err: text(err) })
}

/// Appends output of a command.
///
/// # Errors
/// If there is too much.
pub fn keep(said: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    if said.len() + bytes.len() > MOST_SAID {
        return Err(Error::of(Failure::TooMuchSaid { most_mib: MOST_SAID >> 20 }));
    }
    said.extend_from_slice(bytes);
    Ok(())
}

/// The stdout of `command`.
///
/// # Errors
/// If it fails.
pub fn output(machine: &dyn Machine, command: &str) -> Result<String> {
    let finished = finish(machine, command)?;
    if finished.code == 0 {
        return Ok(finished.out);
    }
    let (machine, code, complaint) = (machine.name(), finished.code, finished.complaint().to_string());
    Err(Error::of(Failure::CommandFailed { machine, code, complaint }))
}

/// Quotes a word for the shell. A leading `~/` stays the home folder.
pub fn quoted(word: &str) -> String {
    match word.strip_prefix("~/") {
        Some(rest) => format!("\"$HOME\"/{}", verbatim(rest)),
        None => verbatim(word),
    }
}

/// The same, without any expansion.
fn verbatim(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
