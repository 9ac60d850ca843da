//! Authentication of the user at a machine: by a named key, by the agent's keys, or by the usual
//! files.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ssh_key::PrivateKey;
use ssh2::{Agent, PublicKey, Session};

use super::failure::Failure;
use super::login::{HostKey, Key, Login, UsualKeys};
use super::refused::Denied;
use crate::error::{Error, Result};
use crate::home::own_user;
use crate::outside;

/// The largest public key file in bytes.
const MOST: u64 = 1 << 16;
/// Servers close the connection after some unknown keys, usually six. This many of the agent's keys
/// are offered.
const MOST_OF_AGENT: usize = 20;

/// libssh2's message if a machine does not know a key.
const UNKNOWN: &str = "Username/PublicKey combination invalid";

/// Logs in on a session whose machine has been verified; `name` is for messages.
pub(super) fn authenticate(session: &Session, login: &Login, name: &str) -> Result<()> {
    match &login.key {
        Key::File(file) => one(session, login, name, file),
        Key::Usual(keys) => several(session, login, name, keys),
    }
}

fn denied(name: &str, why: Denied) -> Error {
    Error::of(Failure::Denied { machine: name.to_string(), why })
}

/// Tries a private key.
///
/// # Errors
/// The reason if it is not accepted.
fn offer(session: &Session, user: &str, file: &Path) -> std::result::Result<(), String> {
    session.userauth_pubkey_file(user, None, file, None).map_err(|e| e.message().to_string())
}

fn one(session: &Session, login: &Login, name: &str, file: &Path) -> Result<()> {
    if !file.exists() {
        return Err(denied(name, Denied::NoSuchKey(file.to_path_buf())));
    }
    // The key of a rented machine is the program's own, which has made it with its mode.
    if matches!(login.host_key, HostKey::Known { .. }) && is_open(file) {
        return Err(denied(name, Denied::OpenKey(file.to_path_buf())));
    }
    offer(session, &login.user, file).and_then(|()| whole(session)).map_err(|reason| {
        denied(name, Denied::KeyNotAccepted { key: file.to_path_buf(), user: login.user.clone(), reason })
    })
}

/// True if a private key of this user can be read by others. As in `ssh`, such a key is not used.
fn is_open(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.uid() == own_user() && found.mode() & 0o077 != 0)
}

/// Checks that the key suffices: a server may require more.
fn whole(session: &Session) -> std::result::Result<(), String> {
    if session.authenticated() {
        Ok(())
    } else {
        Err("it asks for more than a key, which this program cannot give".to_string())
    }
}

fn several(session: &Session, login: &Login, name: &str, keys: &UsualKeys) -> Result<()> {
    let mut trial = Trial::new(session, &login.user);
    if keys.agent
        && let Some((agent, held)) = agent(session, keys.agent_at.as_deref())
    {
        (trial.agent, trial.held) = (Some(agent), held);
    }
    // The order of `ssh`: keys that are named, or have a usual name, and that the agent holds come
    // first.
    if keys.named.iter().any(|file| trial.by_agent(file) || trial.by_file(file))
        || keys.usual.iter().any(|file| trial.by_agent(file))
        || (!keys.only_named && trial.by_other_keys_of_agent())
        || keys.usual.iter().any(|file| trial.by_file(file))
    {
        return whole(session).map_err(|reason| denied(name, Denied::MoreThanKey(reason)));
    }
    let (user, Trial { tried, refusals, .. }) = (&login.user, trial);
    let files = keys.named.iter().chain(&keys.usual);
    let elsewhere = files.filter(|file| (!file.is_file() || half(file).is_some()) && public(file).is_some());
    let elsewhere: Vec<String> = elsewhere.map(|file| file.display().to_string()).collect();
    let shown = |files: &[PathBuf]| files.iter().map(|file| file.display().to_string()).collect();
    Err(denied(
        name,
        match tried.is_empty() {
            true if !elsewhere.is_empty() => Denied::NotInAgent(elsewhere),
            true if !keys.named.is_empty() => Denied::NoNamedKey(shown(&keys.named)),
            true => Denied::NoKey,
            false => {
                let methods = methods(session, user);
                Denied::NoKeyAccepted { user: user.clone(), tried, refusals, methods }
            }
        },
    ))
}

/// The keys that are offered to a machine in turn.
struct Trial<'a> {
    session: &'a Session,
    user: &'a str,
    agent: Option<Agent>,
    /// The agent's keys that were not offered yet.
    held: Vec<PublicKey>,
    /// Files of keys that the machine does not know.
    unknown: Vec<PathBuf>,
    /// The attempts and their results, for a message.
    tried: Vec<String>,
    refusals: Vec<String>,
}

impl<'a> Trial<'a> {
    fn new(session: &'a Session, user: &'a str) -> Self {
        let (held, unknown, tried, refusals) = Default::default();
        Self { session, user, agent: None, held, unknown, tried, refusals }
    }

    /// Tries a key of the agent. A machine that requires more than a key has accepted it
    /// nevertheless.
    ///
    /// # Errors
    /// The reason if it is not accepted.
    fn shown(&self, key: &PublicKey) -> std::result::Result<(), String> {
        let agent = self.agent.as_ref().ok_or_else(|| "there is no agent".to_string())?;
        agent.userauth(self.user, key).map_err(|e| e.message().to_string())
    }

    /// Tries the key whose private or public half is in `file`, if the agent holds it.
    fn by_agent(&mut self, file: &Path) -> bool {
        let held = |key: Vec<u8>| self.held.iter().position(|held| held.blob() == key);
        let Some(place) = public(file).and_then(held) else { return false };
        let key = self.held.remove(place);
        self.tried.push(format!("{} (of the SSH agent)", file.display()));
        let said = self.shown(&key).err();
        if said.as_ref().is_some_and(|said| said.contains(UNKNOWN)) {
            self.unknown.push(file.to_path_buf());
        }
        said.is_none()
    }

    fn by_other_keys_of_agent(&mut self) -> bool {
        let mut others = std::mem::take(&mut self.held);
        others.truncate(MOST_OF_AGENT);
        others.iter().any(|key| {
            self.tried.push(format!("\"{}\" of the SSH agent", key.comment()));
            self.shown(key).is_ok()
        })
    }

    /// Tries the private key in `file`.
    fn by_file(&mut self, file: &Path) -> bool {
        if !file.is_file() || half(file).is_some() || self.unknown.iter().any(|unknown| unknown == file) {
            return false;
        }
        self.tried.push(file.display().to_string());
        if is_open(file) {
            let file = file.display();
            self.refusals.push(format!("{file}: others on this computer may read it, `chmod 600 {file}`"));
            return false;
        }
        let said = offer(self.session, self.user, file).err();
        // The usual message for unknown keys is left out.
        let told = said.as_ref().filter(|said| !said.contains(UNKNOWN));
        self.refusals.extend(told.map(|said| format!("{}: {}", file.display(), outside::complaint(said))));
        said.is_none()
    }
}

/// The other methods of authentication that the machine offers.
fn methods(session: &Session, user: &str) -> String {
    match session.auth_methods(user) {
        Ok(methods) if !methods.split(',').any(|method| method == "publickey") => {
            format!("; it lets in by {}, and not by key", outside::complaint(methods))
        }
        _ => String::new(),
    }
}

fn agent(session: &Session, at: Option<&Path>) -> Option<(Agent, Vec<PublicKey>)> {
    let mut agent = session.agent().ok()?;
    if let Some(at) = at {
        agent.set_identity_path(at).ok()?;
    }
    agent.connect().ok()?;
    agent.list_identities().ok()?;
    let identities = agent.identities().ok()?;
    Some((agent, identities))
}

/// The public half of the key in `file`: from the file itself, from the file next to it, or from a
/// private key without its passphrase.
fn public(file: &Path) -> Option<Vec<u8>> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    half(file).or_else(|| half(Path::new(&beside))).or_else(|| {
        let text = outside::read(file, MOST).ok()?;
        PrivateKey::from_openssh(text).ok()?.public_key().to_bytes().ok()
    })
}

/// The key in a public key file.
fn half(file: &Path) -> Option<Vec<u8>> {
    let text = outside::read(file, MOST).ok()?;
    let line = String::from_utf8_lossy(&text);
    let line = line.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    ssh_key::PublicKey::from_openssh(line).ok()?.to_bytes().ok()
}
