//! The login of a machine: the user's options, completed by `~/.ssh/config` as `ssh` does.

use std::path::PathBuf;
use std::time::Duration;

use super::config::{self, Settings, expanded};
use super::failure::Failure;
use super::known_hosts::Looked;
use super::target::{Target, is_plain};
use super::trust;
use crate::error::{Error, Result};

const PORT: u16 = 22;
/// Key files in `~/.ssh` that are tried if none is named. The last two are used by an agent only.
const USUAL_KEYS: [&str; 5] = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"];
/// The files of known hosts by default.
const KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"];
const SYSTEM_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
/// The largest number of jump hosts.
const MAX_HOPS: usize = 8;

/// A user's own machine.
#[derive(Clone, Debug)]
pub struct SshTarget {
    /// As `Target` parses it.
    pub host: String,
    /// The private key file. By default the ones in `~/.ssh/config`, the agent, and the usual
    /// files.
    pub key: Option<PathBuf>,
    /// The required fingerprint of its host key, and a file that must contain the key. In addition
    /// the user must have accepted the key.
    pub fingerprint: Option<String>,
    pub known_hosts: Option<PathBuf>,
}

/// The authentication of the user.
#[derive(Clone, Debug)]
pub enum Key {
    File(PathBuf),
    Usual(UsualKeys),
}

/// Keys that are tried in turn.
#[derive(Clone, Debug, Default)]
pub struct UsualKeys {
    /// Files named in `~/.ssh/config`: tried first, by the agent if it holds them.
    pub named: Vec<PathBuf>,
    /// True if only those and the usual keys are offered (`IdentitiesOnly`).
    pub only_named: bool,
    /// The agent at `SSH_AUTH_SOCK`, or at the given socket, if one is used.
    pub agent: bool,
    pub agent_at: Option<PathBuf>,
    /// Files that are tried if none is named: by the agent first, by themselves last.
    pub usual: Vec<PathBuf>,
}

/// The verification of the machine.
#[derive(Clone, Debug)]
pub enum HostKey {
    /// One of these fingerprints, as `ssh-keygen -lf` prints them (`SHA256:…`), from the creator of
    /// the machine.
    Fingerprints(Vec<String>),
    /// A key that the user has accepted and that matches the given fingerprint and file, if any.
    Known { fingerprint: Option<String>, known_hosts: Option<PathBuf> },
}

#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: Key,
    pub host_key: HostKey,
    pub timeout: Duration,
    /// The name that the user has given, which may be an alias of `host`.
    pub called: String,
    pub looked: Looked,
    /// The user's and the system's files of known hosts.
    pub known_hosts: Vec<PathBuf>,
    /// `RevokedHostKeys` of `~/.ssh/config`: a file of keys that are never accepted.
    pub revoked: Option<PathBuf>,
    /// The jump host.
    pub jump: Option<Box<Login>>,
    /// Skipped settings of `~/.ssh/config`.
    pub notes: Vec<String>,
}

impl Login {
    /// The login of a machine that was created for us, with its provider's data.
    pub fn made(
        user: &str,
        host: &str,
        port: u16,
        key: PathBuf,
        fingerprints: Vec<String>,
        timeout: Duration,
    ) -> Result<Self> {
        if !is_plain(user) || !is_plain(host) {
            let (user, host) = (user.to_string(), host.to_string());
            return Err(Error::of(Failure::BadAddress { user, host, port }));
        }
        Ok(Self {
            user: user.to_string(),
            host: host.to_string(),
            port,
            key: Key::File(key),
            host_key: HostKey::Fingerprints(fingerprints),
            timeout,
            called: host.to_string(),
            looked: Looked { host: host.to_string(), port, alias: None },
            known_hosts: Vec::new(),
            revoked: None,
            jump: None,
            notes: Vec::new(),
        })
    }

    /// All names under which the user may have accepted its key.
    pub fn names(&self) -> Vec<&str> {
        let alias = self.looked.alias.as_deref();
        [Some(self.called.as_str()), Some(self.host.as_str()), alias].into_iter().flatten().collect()
    }
}

impl SshTarget {
    /// # Errors
    /// An invalid address or fingerprint, and unsupported settings of `~/.ssh/config`.
    pub fn login(&self, timeout: Duration) -> Result<Login> {
        let target = Target::parse(&self.host)?;
        let settings = config::settings(&target.host, target.user.as_deref())?;
        let mut login = login(&target, settings, timeout, 0)?;
        if let Some(key) = &self.key {
            login.key = Key::File(config::path(&key.to_string_lossy()));
        }
        let fingerprint = self.fingerprint.as_deref().map(trust::fingerprint).transpose()?;
        let known_hosts = self.known_hosts.as_ref().map(|file| config::path(&file.to_string_lossy()));
        login.host_key = HostKey::Known { fingerprint, known_hosts };
        Ok(login)
    }
}

fn login(target: &Target, settings: Settings, timeout: Duration, hops: usize) -> Result<Login> {
    let host = settings.host_name.clone().unwrap_or_else(|| target.host.clone());
    let local = config::local_user();
    let user = target.user.clone().or_else(|| settings.user.clone()).unwrap_or_else(|| local.clone());
    let port = target.port.or(settings.port).unwrap_or(PORT);
    if !is_plain(&user) || !is_plain(&host) {
        return Err(Error::of(Failure::BadSettings { user, host, called: target.host.clone() }));
    }
    let number = port.to_string();
    let tokens: [(char, &str); 5] = [('h', &host), ('n', &target.host), ('r', &user), ('u', &local), ('p', &number)];
    let files = |names: &[String]| -> Vec<PathBuf> {
        let names = names.iter().filter(|name| !name.eq_ignore_ascii_case("none"));
        names.map(|name| PathBuf::from(expanded(name, &tokens))).collect()
    };
    let or = |names: &Option<Vec<String>>, usual: [&str; 2]| {
        files(&names.clone().unwrap_or_else(|| usual.map(str::to_string).to_vec()))
    };
    let mut known_hosts = or(&settings.user_known_hosts, KNOWN_HOSTS);
    known_hosts.extend(or(&settings.global_known_hosts, SYSTEM_KNOWN_HOSTS));
    let revoked = settings.revoked_host_keys.as_ref().and_then(|name| files(std::slice::from_ref(name)).pop());
    let key = Key::Usual(keys(&settings, &files));
    let looked = Looked { host: host.clone(), port, alias: settings.host_key_alias.clone() };
    let host_key = HostKey::Known { fingerprint: None, known_hosts: None };
    let jump = match jump(&settings, &target.host)? {
        Some(way) => Some(Box::new(through(&way, timeout, hops)?)),
        None => None,
    };
    let (called, notes) = (target.host.clone(), settings.notes);
    Ok(Login { user, host, port, key, host_key, timeout, called, looked, known_hosts, revoked, jump, notes })
}

fn keys(settings: &Settings, files: &dyn Fn(&[String]) -> Vec<PathBuf>) -> UsualKeys {
    let named = files(&settings.identity_files);
    // There may be only its public half: the agent has the other.
    let usual = USUAL_KEYS.map(|name| config::home().join(".ssh").join(name));
    let usual = if settings.identity_files.is_empty() { usual.to_vec() } else { Vec::new() };
    let agent = settings.identity_agent.as_deref();
    let off = agent.is_some_and(|agent| agent.eq_ignore_ascii_case("none"));
    let at = agent.filter(|agent| !off && *agent != "SSH_AUTH_SOCK");
    let agent_at = at.and_then(|agent| match agent.strip_prefix('$').filter(|name| !name.starts_with('{')) {
        Some(variable) => std::env::var_os(variable).map(PathBuf::from),
        None => files(&[agent.to_string()]).into_iter().next(),
    });
    UsualKeys { named, only_named: settings.identities_only == Some(true), agent: !off, agent_at, usual }
}

/// The jump hosts, as ProxyJump lists them.
fn jump(settings: &Settings, called: &str) -> Result<Option<String>> {
    if let Some(command) = settings.proxy_command.as_deref().filter(|command| !command.eq_ignore_ascii_case("none")) {
        // The older form of the same, before there was ProxyJump.
        let words: Vec<&str> = command.split_whitespace().filter(|word| !matches!(*word, "exec" | "-q")).collect();
        return match words[..] {
            [ssh, "-W", "%h:%p" | "[%h]:%p", way] | [ssh, way, "-W", "%h:%p" | "[%h]:%p"]
                if ssh.rsplit('/').next() == Some("ssh") && !way.starts_with('-') =>
            {
                Ok(Some(way.to_string()))
            }
            _ => Err(Error::of(Failure::ProxyCommand(called.to_string()))),
        };
    }
    Ok(settings.proxy_jump.clone().filter(|way| !way.eq_ignore_ascii_case("none")))
}

/// The login of the last jump host, which is reached through the ones before it.
fn through(way: &str, timeout: Duration, hops: usize) -> Result<Login> {
    let mut reached: Option<Login> = None;
    for (number, word) in way.split(',').enumerate() {
        if hops + number >= MAX_HOPS {
            return Err(Error::of(Failure::TooManyHops { most: MAX_HOPS, last: word.to_string() }));
        }
        let target = Target::parse(word).map_err(|e| e.context("~/.ssh/config, ProxyJump"))?;
        let mut settings = config::settings(&target.host, target.user.as_deref())?;
        // Only the first one is reached directly.
        if reached.is_some() {
            (settings.proxy_jump, settings.proxy_command) = (None, None);
        }
        let before = reached.take().map(Box::new);
        let next = login(&target, settings, timeout, hops + number + 1)?;
        reached = Some(Login { jump: before.or(next.jump.clone()), ..next });
    }
    reached.ok_or_else(|| Error::of(Failure::NoHop))
}
