//! Why a machine is not trusted, and why it does not let the user in, with the words for it.

use std::path::PathBuf;

const ANOTHER: &str = "this is not the machine that was created, or somebody is in between: nothing was sent to it";
const COMPARE: &str = "log in once with ssh and compare the fingerprint";

/// The host key that was expected.
#[derive(Debug)]
pub enum Expected {
    /// One of these fingerprints.
    OneOf(Vec<String>),
    /// One that stands in a file that the user or a script names.
    InNamed(PathBuf),
    /// The one that a file has for this machine.
    AnotherBy { file: PathBuf, line: usize },
    /// One that stands in this file, where only an authority stands that signs keys.
    BySignature(String),
    /// One that stands in this file, where nothing stands.
    InKnown(String),
}

/// Why a machine does not let the user in.
#[derive(Debug)]
pub enum Denied {
    NoSuchKey(PathBuf),
    KeyNotAccepted {
        key: PathBuf,
        user: String,
        reason: String,
    },
    /// Others on this computer may read the private key.
    OpenKey(PathBuf),
    /// A key is accepted, and does not suffice.
    MoreThanKey(String),
    /// Only the public halves of these keys are here.
    NotInAgent(Vec<String>),
    /// Keys that `~/.ssh/config` names do not exist.
    NoNamedKey(Vec<String>),
    NoKey,
    NoKeyAccepted {
        user: String,
        tried: Vec<String>,
        refusals: Vec<String>,
        /// What the machine takes in place of a key, in words.
        methods: String,
    },
}

impl Expected {
    /// The words for it, and what to do.
    pub(super) fn told(&self) -> (String, String) {
        match self {
            Self::OneOf(known) => (known.join(" or "), ANOTHER.to_string()),
            Self::InNamed(file) => (format!("one that stands in {}", file.display()), COMPARE.to_string()),
            Self::AnotherBy { file, line } => (
                format!("another one by {}, line {line}", file.display()),
                "if the machine was installed anew: `ssh-keygen -R HOST`, then log in once with ssh; else somebody is \
                 in between"
                    .to_string(),
            ),
            Self::BySignature(file) => (
                format!(
                    "one that stands in {file}; a @cert-authority stands there, whose certificates this program does \
                     not read"
                ),
                "log in once with ssh, and add the machine's own key: `ssh-keyscan HOST`, compared with what ssh says"
                    .to_string(),
            ),
            Self::InKnown(file) => (
                format!("one that stands in {file}"),
                format!(
                    "{COMPARE}; or name it yourself: `outlier run --host-key SHA256:… SCRIPT`. What a script names is \
                     not trusted for that"
                ),
            ),
        }
    }
}

impl Denied {
    /// The words for it, and what to do.
    pub(super) fn told(&self) -> (String, &'static str) {
        match self {
            Self::NoSuchKey(file) => {
                (format!("the key {} does not exist", file.display()), "give `key`, the file of a private key")
            }
            Self::KeyNotAccepted { key, user, reason } => (
                format!("the key {} is not accepted for {user}: {reason}", key.display()),
                "add its public line to ~/.ssh/authorized_keys there; a key with a passphrase needs ssh-agent (leave \
                 `key` out)",
            ),
            Self::OpenKey(file) => (
                format!("others on this computer may read the key {}: it is not used, as in ssh", file.display()),
                "`chmod 600 FILE`; if somebody may have read it, make another with `ssh-keygen`",
            ),
            Self::MoreThanKey(reason) => (reason.clone(), "log in once with ssh, or use another account"),
            Self::NotInAgent(files) => (
                format!("no SSH agent holds the key whose public half is here as {}", files.join(", ")),
                "start the agent that has it; SSH_AUTH_SOCK, or IdentityAgent in ~/.ssh/config, says where it is",
            ),
            Self::NoNamedKey(files) => (
                format!("no such key as ~/.ssh/config names for it: {}", files.join(", ")),
                "look at its IdentityFile there, or give `key`, the file of a private key",
            ),
            Self::NoKey => (
                "there is no key to log in with: no SSH agent holds one, and ~/.ssh has no id_ed25519, id_ecdsa or \
                 id_rsa"
                    .to_string(),
                "run `ssh-add`, make a key with `ssh-keygen`, or give `key`, the file of a private key",
            ),
            Self::NoKeyAccepted { user, tried, refusals, methods } => {
                let why = if refusals.is_empty() { String::new() } else { format!(" ({})", refusals.join("; ")) };
                (
                    format!("no key is accepted for {user}; tried were {}{why}{methods}", tried.join(", ")),
                    "add a public line to ~/.ssh/authorized_keys there, or give `key`; a key with a passphrase needs \
                     `ssh-add`",
                )
            }
        }
    }
}
