//! Machines that commands run on and files go to: this one, or one over SSH.

mod auth;
mod config;
mod here;
mod keys;
mod known_hosts;
mod login;
mod names;
mod part;
mod pump;
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

use crate::error::{Error, Kind, Result};

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

/// Bytes of what a command says that are kept in memory, each of stdout and stderr.
pub const MOST_SAID: usize = 64 << 20;

/// Takes what a command writes; where it is silent, and that can be noticed, nothing now and then. An error ends the command.
pub type Listener<'a> = dyn FnMut(Output) -> Result<()> + 'a;

/// A piece of what a command wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    Out(&'a [u8]),
    Err(&'a [u8]),
}

/// Where commands run. Commands are lines for `/bin/sh -c`.
pub trait Machine: Send + Sync {
    /// For messages: `root@203.0.113.7:22` or `this machine`.
    fn name(&self) -> String;

    /// Runs `command` with `input` on its stdin; what it writes arrives as it comes. Gives its exit code, 128 and the
    /// signal when a signal ended it.
    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32>;

    /// Starts `command` and gives its stdin and stdout as one stream: closing it ends the command's stdin, end of file
    /// means that the command or the connection has ended.
    fn open(&self, command: &str) -> Result<UnixStream>;

    /// Where nothing that a connection starts outlives it: a folder there that somebody watches who starts what appears in
    /// it as `start`, a script for `/bin/sh`.
    fn keeper(&self) -> Option<String> {
        None
    }

    /// Whether it is this computer under whatever name. Another that cannot be told from it counts as it.
    fn is_here(&self) -> bool {
        false
    }

    /// How it ended, when it is known to be no more. None while it may only be out of reach.
    fn ended(&self) -> Option<String> {
        None
    }
}

/// What became of a command.
pub struct Finished {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// The last line that says what went wrong.
    pub fn complaint(&self) -> &str {
        let last = |text: &str| text.trim().lines().next_back().is_some();
        let text = if last(&self.err) { &self.err } else { &self.out };
        text.trim().lines().next_back().unwrap_or("no message")
    }
}

/// Runs `command` without input and collects what it writes.
pub fn finish(machine: &dyn Machine, command: &str) -> Result<Finished> {
    collect(machine, command, &mut std::io::empty())
}

/// Runs `command` and collects what it writes; an error when that is more than `MOST_SAID`.
pub fn collect(machine: &dyn Machine, command: &str, input: &mut (dyn Read + Send)) -> Result<Finished> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = machine.run(command, input, &mut |piece| match piece {
        Output::Out(bytes) => keep(&mut out, bytes),
        Output::Err(bytes) => keep(&mut err, bytes),
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Finished { code, out: text(out), err: text(err) })
}

/// Adds what a command has written; an error when it is too much to keep.
pub fn keep(said: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    if said.len() + bytes.len() > MOST_SAID {
        let message = format!("a command wrote more than {} MiB and was ended", MOST_SAID >> 20);
        return Err(Error::new(Kind::Service, message).hint("let it write into a file there, and fetch that"));
    }
    said.extend_from_slice(bytes);
    Ok(())
}

/// What `command` writes to stdout; an error when it fails.
pub fn output(machine: &dyn Machine, command: &str) -> Result<String> {
    let finished = finish(machine, command)?;
    if finished.code == 0 {
        return Ok(finished.out);
    }
    let message =
        format!("{}: a command failed with exit code {}: {}", machine.name(), finished.code, finished.complaint());
    Err(Error::new(Kind::Service, message))
}

/// One word for the shell, whatever is in it; a leading `~/` stays the home folder.
pub fn quoted(word: &str) -> String {
    match word.strip_prefix("~/") {
        Some(rest) => format!("\"$HOME\"/{}", verbatim(rest)),
        None => verbatim(word),
    }
}

/// The same, in which nothing stands for anything else.
fn verbatim(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
