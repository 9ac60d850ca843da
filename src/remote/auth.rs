//! Proves to a machine who we are: by a key that is named, by the agent's keys, by the usual files.

use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use ssh2::{Agent, PublicKey, Session};

use super::login::{Key, Login, UsualKeys};
use crate::error::{Error, Kind, Result};
use crate::outside;

/// Bytes of the file of a public key.
const MOST: u64 = 1 << 16;
/// Servers close the connection after some keys that they do not know, mostly six; so many of the agent's are shown.
const MOST_OF_AGENT: usize = 20;

/// Logs in on a session whose machine has proved itself; `name` is for messages.
pub fn authenticate(session: &Session, login: &Login, name: &str) -> Result<()> {
    match &login.key {
        Key::File(file) => one(session, login, name, file),
        Key::Usual(keys) => several(session, login, name, keys),
    }
}

fn denied(name: &str, what: impl std::fmt::Display, hint: &str) -> Error {
    Error::new(Kind::Auth, format!("{name}: {what}")).hint(hint)
}

/// Tries a private key; where it is not taken, says why.
fn offer(session: &Session, user: &str, file: &Path) -> std::result::Result<(), String> {
    session.userauth_pubkey_file(user, None, file, None).map_err(|e| e.message().to_string())
}

fn one(session: &Session, login: &Login, name: &str, file: &Path) -> Result<()> {
    if !file.exists() {
        let what = format!("the key {} does not exist", file.display());
        return Err(denied(name, what, "give `key`, the file of a private key"));
    }
    offer(session, &login.user, file).and_then(|()| whole(session)).map_err(|said| {
        let what = format!("the key {} is not accepted for {}: {said}", file.display(), login.user);
        denied(
            name,
            what,
            "add its public line to ~/.ssh/authorized_keys there; a key with a passphrase needs ssh-agent (leave `key` out)",
        )
    })
}

/// A server may want more than a key.
fn whole(session: &Session) -> std::result::Result<(), String> {
    if session.authenticated() {
        Ok(())
    } else {
        Err("it asks for more than a key, which this program cannot give".to_string())
    }
}

fn several(session: &Session, login: &Login, name: &str, keys: &UsualKeys) -> Result<()> {
    let user = &login.user;
    let mut tried = Vec::new();
    let mut refusals = Vec::new();
    let held = if keys.agent { agent(session, keys.agent_at.as_deref()) } else { None };
    let (agent, identities) = held.map_or((None, Vec::new()), |(agent, identities)| (Some(agent), identities));
    let by_agent = |identity: &PublicKey| agent.as_ref().is_some_and(|agent| agent.userauth(user, identity).is_ok());
    let mut done = Vec::new();
    for file in &keys.named {
        let held = public(file).and_then(|key| identities.iter().find(|identity| identity.blob() == key));
        if let Some(identity) = held {
            done.push(identity.blob());
            tried.push(format!("{} (of the SSH agent)", file.display()));
            if by_agent(identity) {
                return finished(session, name);
            }
        }
        by_file(session, user, file, &mut tried, &mut refusals);
        if session.authenticated() {
            return Ok(());
        }
    }
    if !keys.only_named {
        let others = identities.iter().filter(|identity| !done.contains(&identity.blob())).take(MOST_OF_AGENT);
        for identity in others {
            tried.push(format!("\"{}\" of the SSH agent", identity.comment()));
            if by_agent(identity) {
                return finished(session, name);
            }
        }
    }
    for file in &keys.usual {
        by_file(session, user, file, &mut tried, &mut refusals);
        if session.authenticated() {
            return Ok(());
        }
    }
    if tried.is_empty() && !keys.named.is_empty() {
        let named: Vec<String> = keys.named.iter().map(|file| file.display().to_string()).collect();
        let what = format!("no such key as ~/.ssh/config names for it: {}", named.join(", "));
        return Err(denied(name, what, "look at its IdentityFile there, or give `key`, the file of a private key"));
    }
    if tried.is_empty() {
        let what =
            "there is no key to log in with: no SSH agent holds one, and ~/.ssh has no id_ed25519, id_ecdsa or id_rsa";
        return Err(denied(
            name,
            what,
            "run `ssh-add`, make a key with `ssh-keygen`, or give `key`, the file of a private key",
        ));
    }
    let why = if refusals.is_empty() { String::new() } else { format!(" ({})", refusals.join("; ")) };
    let what = format!("no key is accepted for {user}; tried were {}{why}{}", tried.join(", "), methods(session, user));
    let hint =
        "add a public line to ~/.ssh/authorized_keys there, or give `key`; a key with a passphrase needs `ssh-add`";
    Err(denied(name, what, hint))
}

fn by_file(session: &Session, user: &str, file: &Path, tried: &mut Vec<String>, refusals: &mut Vec<String>) {
    if !file.is_file() {
        return;
    }
    tried.push(file.display().to_string());
    if let Err(said) = offer(session, user, file) {
        // What every key that is not known there meets with tells nothing.
        if !said.contains("Username/PublicKey combination invalid") {
            refusals.push(format!("{}: {}", file.display(), outside::complaint(said)));
        }
    }
}

fn finished(session: &Session, name: &str) -> Result<()> {
    whole(session).map_err(|said| denied(name, said, "log in once with ssh, or use another account"))
}

/// What else would let one in, where it is not a key at all.
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

/// The public key beside a private one.
fn public(file: &Path) -> Option<Vec<u8>> {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    let text = outside::read(&PathBuf::from(name), MOST).ok()?;
    let text = String::from_utf8_lossy(&text);
    Base64::decode_vec(text.split_whitespace().nth(1)?).ok()
}
