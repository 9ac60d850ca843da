//! Which host keys the user has vouched for. A script may say which key it expects, but none that it names is trusted for
//! that: only those on the command line, in `OUTLIER_HOST_KEYS`, or in the user's `known_hosts`.

use std::path::PathBuf;
use std::sync::OnceLock;

/// Characters of a SHA-256 in base64.
const LENGTH: usize = 43;
const BEGIN: &str = "SHA256:";

/// A host key, for one host or for whoever proves to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `host` or `host:port`.
    host: Option<String>,
    fingerprint: String,
}

/// Who speaks in this process, and which host keys the user has named to it.
static NAMED: OnceLock<Vec<Named>> = OnceLock::new();
/// No script runs in this process: what the project's own records say was the user's word.
static NO_SCRIPT: OnceLock<()> = OnceLock::new();

/// `[HOST=]SHA256:…`, as `ssh-keygen -lf` prints the fingerprint.
pub fn parse(word: &str) -> Option<Named> {
    let (before, digest) = word.split_once(BEGIN)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    if digest.len() != LENGTH || !digest.chars().all(plain) {
        return None;
    }
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

/// The user has named these, once per process.
pub fn trust(named: Vec<Named>) {
    let _ = NAMED.set(named);
}

/// Nothing in this process was written by a script.
pub fn no_script() {
    let _ = NO_SCRIPT.set(());
}

pub fn is_scripted() -> bool {
    NO_SCRIPT.get().is_none()
}

/// Whether the user has named this host key, for all hosts or for this one.
pub fn is_named(host: &str, port: u16, fingerprint: &str) -> bool {
    let environment = std::env::var("OUTLIER_HOST_KEYS").unwrap_or_default();
    let words = environment.split(|c: char| c.is_whitespace() || c == ',');
    let all = words.filter_map(parse).chain(NAMED.get().into_iter().flatten().cloned());
    let here = |named: &str| named == host || named == format!("{host}:{port}") || named == format!("[{host}]:{port}");
    all.into_iter().any(|named| named.fingerprint == fingerprint && named.host.as_deref().is_none_or(here))
}

/// The user's own file of known hosts.
pub fn known_hosts() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(".ssh/known_hosts")
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
        for word in ["SHA256:abc", "", "x", &format!("x{key}"), &format!("={key}"), &format!("{key}=")] {
            assert_eq!(parse(word), None, "{word}");
        }
    }
}
