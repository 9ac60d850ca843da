//! What can go wrong on the way to a machine and with files that travel, with the words for it.

use std::path::PathBuf;
use std::time::Duration;

use super::refused::{Denied, Expected};
use crate::disk::human_size;
use crate::error::{self, Error, Kind};

/// What is done when a connection is not made in time.
pub(super) const CONNECTING: &str = "connecting";
const REACHABLE: &str = "is the machine running, and its sshd reachable from here?";
const LARGER_DISK: &str = "ask for a larger disk (`disk_gb`), or remove files there with run_command";
const BELOW_THERE: &str = "paths are relative to the project's folder on the machine";
const STILL_WRITING: &str = "is something still writing it? try again";
const FORMS: &str = "write host, user@host, user@host:port, ssh://user@host:port, or a name of ~/.ssh/config";

#[derive(Debug)]
pub enum Failure {
    /// A connection to a machine was not made, or broke while it did this.
    Connection {
        machine: String,
        doing: &'static str,
        source: Source,
    },
    /// A jump host does not forward to a machine.
    NotLedOn {
        machine: String,
        jump: String,
        source: ssh2::Error,
    },
    /// A login shell has not started another in this time. `last_word` is what it said, after a
    /// colon.
    ShellHangs {
        machine: String,
        time: Duration,
        last_word: String,
    },
    ShellStartsNothing {
        machine: String,
        code: i32,
        last_word: String,
    },
    ShellEnded {
        machine: String,
        reason: String,
        last_word: String,
    },
    /// A command has written more than this.
    TooMuchSaid {
        most_mib: usize,
    },
    CommandFailed {
        machine: String,
        code: i32,
        complaint: String,
    },

    HostKey {
        machine: String,
        found: String,
        expected: Expected,
    },
    RevokedHostKey {
        machine: String,
        found: String,
        file: PathBuf,
        line: usize,
    },
    /// The name of a file to send is not UTF-8.
    NameIsNoText(String),
    /// The file of `RevokedHostKeys` cannot be read.
    RevokedUnread {
        machine: String,
        file: PathBuf,
        problem: String,
    },
    /// A text is no fingerprint.
    NoFingerprint(String),
    /// The user is not let in.
    Denied {
        machine: String,
        why: Denied,
    },
    /// The key pair of a run cannot be made or read.
    KeyPair {
        doing: &'static str,
        file: PathBuf,
        source: ssh_key::Error,
    },
    KeyFolderIsLink(PathBuf),

    /// A text is no address.
    NoAddress(String),
    /// An address of IPv6, perhaps with a port, without brackets.
    Ipv6WithPort(String),
    /// A command of ssh in place of an address.
    CommandAsAddress(String),
    PasswordInAddress,
    /// A provider has given this address, which is none.
    BadAddress {
        user: String,
        host: String,
        port: u16,
    },
    /// A file of settings that others may write to.
    SettingsOfOthers(PathBuf),
    EndlessIncludes(PathBuf),
    BadPort {
        place: String,
        port: String,
    },
    /// The settings make this of a name.
    BadSettings {
        user: String,
        host: String,
        called: String,
    },
    ProxyCommand(String),
    TooManyHops {
        most: usize,
        last: String,
    },
    NoHop,

    /// A path of a script leaves the project. `verb` is the primitive.
    OutsideProject {
        verb: String,
        path: String,
    },
    /// A machine may not give this name to a file.
    NotAccepted {
        verb: String,
        path: String,
    },
    LinkLeadsOut {
        verb: String,
        name: String,
    },
    /// A file is here, and differs from the one that would replace it.
    StaysAsItIs {
        verb: String,
        name: String,
    },
    Secret {
        verb: String,
        name: String,
    },

    NothingToSend(String),
    NothingThere {
        machine: String,
        path: String,
    },
    /// A machine lists a file that was not asked for.
    NotAskedFor {
        machine: String,
        name: String,
        path: String,
    },
    NotUnpacked {
        machine: String,
        complaint: String,
        disk_is_full: bool,
    },
    NoFile {
        machine: String,
        path: String,
    },
    /// A file has arrived damaged there.
    NotSentWhole {
        machine: String,
        path: String,
    },
    /// A file has arrived damaged here.
    NotFetchedWhole {
        machine: String,
        path: String,
    },
    LongerThanAnnounced {
        machine: String,
        path: String,
        bytes: u64,
    },
    DiskFull {
        machine: String,
        what: String,
    },
    /// Data needs more bytes than are free.
    NoRoom {
        machine: String,
        what: String,
        needed: u64,
        free: u64,
    },
    NotCopied {
        machine: String,
        path: String,
        complaint: String,
    },
}

/// What is behind a lost connection, in words too.
#[derive(Debug)]
pub enum Source {
    Ssh(ssh2::Error),
    System(std::io::Error),
    Words(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ssh(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::Words(words) => f.write_str(words),
        }
    }
}

impl Source {
    fn is_late(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == std::io::ErrorKind::TimedOut)
    }
}

impl From<ssh2::Error> for Source {
    fn from(error: ssh2::Error) -> Self {
        Self::Ssh(error)
    }
}

impl From<&'static str> for Source {
    fn from(words: &'static str) -> Self {
        Self::Words(words)
    }
}

impl From<std::io::Error> for Source {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

impl error::Failure for Failure {
    fn told(&self) -> Error {
        let auth = |message: String| Error::new(Kind::Auth, message);
        let service = |message: String| Error::new(Kind::Service, message);
        let bad = |message: String| Error::bad_argument(message);
        match self {
            Self::Connection { machine, doing, source } => {
                let kind = if *doing == CONNECTING && source.is_late() { Kind::Timeout } else { Kind::Lost };
                Error::new(kind, format!("{machine}: {doing}: {source}")).hint(REACHABLE)
            }
            Self::NotLedOn { machine, jump, source } => Error::new(
                Kind::Lost,
                format!("{machine}: {CONNECTING}: {jump} does not lead on to it: {}", source.message()),
            )
            .hint("is its name right as that machine knows it, and does its sshd allow forwarding?"),
            Self::ShellHangs { machine, time, last_word } => {
                let time = time.as_secs();
                Error::new(
                    Kind::Timeout,
                    format!("{machine}: its login shell has not started /bin/sh for {time} s{last_word}"),
                )
                .hint("do its startup files (.bashrc, .cshrc, config.fish) wait for something, or start another shell?")
            }
            Self::ShellStartsNothing { machine, code, last_word } => Error::new(
                Kind::Unsupported,
                format!("{machine}: its login shell ended with exit code {code} and started no /bin/sh{last_word}"),
            )
            .hint(
                "commands must be allowed there: a forced command, a restricted shell or nologin does not let them; \
                 use another account, or ask for another shell",
            ),
            Self::ShellEnded { machine, reason, last_word } => {
                Error::new(Kind::Lost, format!("{machine}: its login shell was ended: {reason}{last_word}"))
                    .hint("log in with ssh and look")
            }
            Self::TooMuchSaid { most_mib } => {
                service(format!("a command wrote more than {most_mib} MiB and was ended"))
                    .hint("let it write into a file there, and fetch that")
            }
            Self::CommandFailed { machine, code, complaint } => {
                service(format!("{machine}: a command failed with exit code {code}: {complaint}"))
            }
            Self::HostKey { machine, found, expected } => {
                let (expected, hint) = expected.told();
                auth(format!("{machine}: its host key is {found}, expected {expected}")).hint(hint)
            }
            Self::RevokedHostKey { machine, found, file, line } => auth(format!(
                "{machine}: its host key is {found}, which {}, line {line}, marks as revoked",
                file.display()
            ))
            .hint("ask whoever runs the machine for its new key"),
            Self::NameIsNoText(name) => bad(format!("sync: the name of {name:?} is not UTF-8 text"))
                .hint("rename it, or name the other files in `up`"),
            Self::RevokedUnread { machine, file, problem } => auth(format!(
                "{machine}: no host key is accepted, because RevokedHostKeys of ~/.ssh/config names {}: {problem}",
                file.display()
            ))
            .hint("correct the name, or list the revoked keys there, one public key per line"),
            Self::NoFingerprint(text) => bad(format!("\"{text}\" is not the fingerprint of a host key"))
                .hint("write SHA256:… or the whole line that `ssh-keygen -lf` prints; `-E sha256` where it prints MD5"),
            Self::Denied { machine, why } => {
                let (why, hint) = why.told();
                auth(format!("{machine}: {why}")).hint(hint)
            }
            Self::KeyPair { doing, file, source } => {
                Error::new(Kind::Io, format!("{doing} the key {}: {source}", file.display()))
                    .hint("remove the file: a new one is made")
            }
            Self::KeyFolderIsLink(folder) => {
                bad(format!("{} is a link: a key would be written elsewhere", folder.display())).hint("remove the link")
            }
            Self::NoAddress(text) => bad(format!("\"{text}\" is not an SSH address")).hint(FORMS),
            Self::Ipv6WithPort(text) => bad(format!("\"{text}\" is not an SSH address"))
                .hint("an IPv6 address with a port is written [ADDRESS]:PORT"),
            Self::CommandAsAddress(text) => bad(format!("\"{text}\" is not an SSH address")).hint(
                "of a command such as `ssh me@a.b -p 2222 -i FILE` write host: \"me@a.b:2222\", key: \"FILE\"",
            ),
            Self::PasswordInAddress => bad("an SSH address with a password in it".to_string())
                .hint(format!("{FORMS}; it is logged in with a key, of an agent, of the usual files or under `key`")),
            Self::BadAddress { user, host, port } => {
                bad(format!("{:?} is not an SSH address", format!("{user}@{host}:{port}")))
            }
            Self::SettingsOfOthers(file) => {
                auth(format!("{}: others may write to it, so it is not believed", file.display()))
                    .hint("`chmod 600` it, as ssh itself asks for")
            }
            Self::EndlessIncludes(file) => {
                bad(format!("{}: too many files that include each other", file.display()))
                    .hint("look for an Include that leads back to its own file")
            }
            Self::BadPort { place, port } => bad(format!("{place}: Port is {port}")).hint("give 1 to 65535"),
            Self::BadSettings { user, host, called } => bad(format!(
                "~/.ssh/config makes \"{user}@{host}\" of \"{called}\", which is not an SSH address"
            ))
            .hint("look at its HostName and User"),
            Self::ProxyCommand(called) => Error::new(
                Kind::Unsupported,
                format!("{called}: ~/.ssh/config reaches it through a ProxyCommand, which this program does not run"),
            )
            .hint("write ProxyJump there; or forward a port with `ssh -L PORT:HOST:22` and name 127.0.0.1:PORT"),
            Self::TooManyHops { most, last } => {
                bad(format!("~/.ssh/config: more than {most} machines on the way, the last of them {last}"))
                    .hint("do two of them name each other in ProxyJump?")
            }
            Self::NoHop => bad("~/.ssh/config: ProxyJump names nobody".to_string()),
            Self::OutsideProject { verb, path } => bad(format!("{verb}: \"{path}\" is not inside the project"))
                .hint("only files below the folder the program runs in travel: name them relative to it"),
            Self::NotAccepted { verb, path } => bad(format!("{verb}: \"{path}\" is not accepted from a machine")).hint(
                "secrets, hidden files and what is run here (stdlib/, scripts/, src/, *.rhai, *.py, *.sh, Makefile …) stay \
                 as they are: fetch it under another name",
            ),
            Self::LinkLeadsOut { verb, name } => {
                bad(format!("{verb}: \"{name}\" is a link that leads out of the project"))
                    .hint("copy what it leads to into the project")
            }
            Self::StaysAsItIs { verb, name } => {
                bad(format!("{verb}: {name:?} is here already, and differs from the one on the machine")).hint(
                    "only files below results/, logs/ and checkpoints/ are replaced: fetch it to a place there, remove \
                     the one that is here, or say `outlier run --allow-write DIR SCRIPT` with its folder",
                )
            }
            Self::Secret { verb, name } => {
                bad(format!("{verb}: \"{name}\" may hold secrets, which stay where they are"))
                    .hint("keys and tokens are handed to machines by the program itself")
            }
            Self::NothingToSend(path) => Error::not_found(format!("sync: there is nothing to send at \"{path}\"")).hint(
                "paths are relative to the folder the program runs in; .env, results/, target/ and keys are never sent",
            ),
            Self::NothingThere { machine, path } => {
                Error::not_found(format!("sync: {machine} has nothing at \"{path}\"")).hint(BELOW_THERE)
            }
            Self::NotAskedFor { machine, name, path } => {
                service(format!("{machine}: it lists {name:?}, which is not at \"{path}\""))
                    .hint("nothing was fetched; names with line breaks cannot be: rename them there")
            }
            Self::NotUnpacked { machine, complaint, disk_is_full } => {
                let (kind, hint) = match disk_is_full {
                    true => (Kind::Io, "the machine's disk is full: ask for a larger one (`disk_gb`)"),
                    false => (Kind::Service, "is tar installed there?"),
                };
                Error::new(kind, format!("{machine}: unpacking files: {complaint}")).hint(hint)
            }
            Self::NoFile { machine, path } => {
                Error::not_found(format!("{machine}: there is no file {path}")).hint(BELOW_THERE)
            }
            Self::NotSentWhole { machine, path } => {
                Error::corrupt(format!("{machine}: {path} did not arrive as it was sent")).hint("try again")
            }
            Self::NotFetchedWhole { machine, path } => {
                Error::corrupt(format!("{machine}: {path} did not arrive as it is there")).hint(STILL_WRITING)
            }
            Self::LongerThanAnnounced { machine, path, bytes } => {
                Error::corrupt(format!("{machine}: {path} is longer than the {bytes} bytes that were announced"))
                    .hint(STILL_WRITING)
            }
            Self::DiskFull { machine, what } => {
                Error::new(Kind::Io, format!("{machine}: the disk is full, {what} does not fit")).hint(LARGER_DISK)
            }
            Self::NoRoom { machine, what, needed, free } => {
                let (needed, free) = (human_size(*needed), human_size(*free));
                Error::new(
                    Kind::Io,
                    format!("{machine}: the disk is full, {what} does not fit: it takes {needed}, {free} are free"),
                )
                .hint(LARGER_DISK)
            }
            Self::NotCopied { machine, path, complaint } => service(format!("{machine}: copying {path}: {complaint}")),
        }
    }

    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection { source: Source::Ssh(source), .. } | Self::NotLedOn { source, .. } => Some(source),
            Self::Connection { source: Source::System(source), .. } => Some(source),
            Self::KeyPair { source, .. } => Some(source),
            _ => None,
        }
    }
}
