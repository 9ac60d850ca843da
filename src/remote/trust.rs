//! Host keys that the user has accepted. A script may name the key that it expects, but that alone
//! is not trusted: only keys on the command line, in `OUTLIER_HOST_KEYS`, or in the user's
//! `known_hosts` are.

use std::sync::OnceLock;

use super::failure::Failure;
use crate::error::{Error, Result};

/// Number of characters of a SHA-256 in base64.
const LENGTH: usize = 43;
const BEGIN: &str = "SHA256:";

/// A host key, for one host or for any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `host` or `host:port`.
    host: Option<String>,
    fingerprint: String,
}

/// The host keys that the user has named to this process.
static NAMED: OnceLock<Vec<Named>> = OnceLock::new();
/// Set if no script runs in this process, so that the project's own records are the user's word.
static NO_SCRIPT: OnceLock<()> = OnceLock::new();

/// Parses `[HOST=]SHA256:…`, or a line of `ssh-keygen -lf`: `256 SHA256:… comment (ED25519)`.
pub fn parse(word: &str) -> Option<Named> {
    let word = word.trim();
    let (before, rest) = word.split_once(BEGIN)?;
    let (digest, behind) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    if digest.len() != LENGTH || !digest.chars().all(plain) {
        return None;
    }
    // The key's bits precede the fingerprint, and its comment and type follow it.
    let bits = before.trim_end();
    let host = bits.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_line = bits.len() < before.len() && host.len() < bits.len();
    let kind = behind.split_whitespace().next_back().unwrap_or_default();
    let before = match (is_line, behind.is_empty()) {
        (true, _) if kind.starts_with('(') && kind.ends_with(')') => host,
        (false, true) => before,
        _ => return None,
    };
    let host = match before.strip_suffix('=') {
        // A flag of a script: --fingerprint=SHA256:…
        Some(flag) if flag.starts_with('-') => None,
        Some("") => return None,
        Some(host) => Some(host.to_string()),
        None if before.is_empty() => None,
        None => return None,
    };
    Some(Named { host, fingerprint: format!("{BEGIN}{digest}") })
}

/// The fingerprint in a text of a script or a user.
///
/// # Errors
/// The text is not a fingerprint.
pub fn fingerprint(text: &str) -> Result<String> {
    let named = parse(text).filter(|named| named.host.is_none());
    named.map(|named| named.fingerprint).ok_or_else(|| Error::of(Failure::NoFingerprint(text.to_string())))
}

/// Sets the keys that the user has named, once per process.
pub fn trust(named: Vec<Named>) {
    let _ = NAMED.set(named);
}

/// Declares that no script runs in this process.
pub fn no_script() {
    let _ = NO_SCRIPT.set(());
}

pub fn is_scripted() -> bool {
    NO_SCRIPT.get().is_none()
}

/// All keys that the user has named, in the environment and on the command line.
fn all() -> Vec<Named> {
    let environment = std::env::var("OUTLIER_HOST_KEYS").unwrap_or_default();
    // A whole line of ssh-keygen is one word, with its spaces.
    let words = |part: &str| match parse(part) {
        Some(named) => vec![named],
        None => part.split_whitespace().filter_map(parse).collect(),
    };
    let environment = environment.split([',', '\n']).flat_map(words);
    environment.chain(NAMED.get().into_iter().flatten().cloned()).collect()
}

impl Named {
    fn is_of(&self, hosts: &[&str], port: u16) -> bool {
        let is = |named: &str, host: &str| {
            named == host || named == format!("{host}:{port}") || named == format!("[{host}]:{port}")
        };
        self.host.as_deref().is_none_or(|named| hosts.iter().any(|host| is(named, host)))
    }
}

/// True if the user has named this host key, for all hosts or for one of these names.
pub fn is_named(hosts: &[&str], port: u16, fingerprint: &str) -> bool {
    all().into_iter().any(|named| named.fingerprint == fingerprint && named.is_of(hosts, port))
}

/// True if the user has named any host key that may apply to this host.
pub fn names_any(hosts: &[&str], port: u16) -> bool {
    all().into_iter().any(|named| named.is_of(hosts, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_are_read_as_they_are_printed() {
        let key = format!("SHA256:{}", "a+/Z".repeat(10) + "123");
        let named = |host: Option<&str>| Some(Named { host: host.map(str::to_string), fingerprint: key.clone() });
        assert_eq!(parse(&key), named(None));
        assert_eq!(parse(&format!("a.b:22={key}")), named(Some("a.b:22")));
        assert_eq!(parse(&format!("--fingerprint={key}")), named(None));
        let lines = [
            format!("256 {key} me@there (ED25519)"),
            format!(" 3072 {key} no comment (RSA)\n"),
            format!("256 {key} (ECDSA)"),
            format!("--fingerprint=256 {key} root@a (ED25519)"),
        ];
        lines.iter().for_each(|line| assert_eq!(parse(line), named(None), "{line}"));
        assert_eq!(parse(&format!("a.b=256 {key} me@there (ED25519)")), named(Some("a.b")));
        assert_eq!(fingerprint(&lines[0]).unwrap(), key);
        assert!(fingerprint(&format!("a={key}")).is_err() && fingerprint("256 MD5:a1 x (RSA)").is_err());
        for word in [
            "SHA256:abc",
            "",
            "x",
            &format!("x{key}"),
            &format!("={key}"),
            &format!("{key}="),
            &format!("{key} comment"),
            &format!("say {key} (ED25519)"),
            &format!("256 {key} comment"),
        ] {
            assert_eq!(parse(word), None, "{word}");
        }
    }
}
