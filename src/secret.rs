//! A value that must not be seen: it cannot be printed, and only `expose` gives it out. Where the program's own secrets come
//! from, and where they may go.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

/// An API key or access token. Not serialisable; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// None when nothing but blanks is given.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_string()))
    }

    /// The value itself, for the header or the stream it belongs in and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a file of the user's says, by the names of variables. Kept here and not in the environment: programs that are started
/// do not inherit it, and threads that read the environment meanwhile are not disturbed.
static KEPT: OnceLock<Vec<(String, Secret)>> = OnceLock::new();

/// From now on `named` finds these where the environment has nothing of the name. Only the first call counts.
pub fn keep(secrets: Vec<(String, Secret)>) {
    let _ = KEPT.set(secrets);
}

/// The secret that a variable of the environment holds, or else the kept one of that name. A variable that is set to nothing
/// hides the kept one.
pub fn named(variable: &str) -> Option<Secret> {
    match std::env::var_os(variable) {
        Some(value) => Secret::new(value.to_str()?),
        None => KEPT.get()?.iter().find(|(name, _)| name == variable).map(|(_, secret)| secret.clone()),
    }
}

/// Whether a secret may be sent to this address: over https, or to this computer itself.
pub fn may_travel(address: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(address) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && here())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        let secret = Secret::new(" rpa_abcdef1234\n").unwrap();
        assert_eq!(secret.expose(), "rpa_abcdef1234");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        assert_eq!(Secret::new(" \t"), None);
    }

    #[test]
    fn secrets_travel_covered_or_not_at_all() {
        for good in ["https://huggingface.co", "http://127.0.0.1:9", "http://[::1]:80/x", "http://localhost:1"] {
            assert!(may_travel(good), "{good}");
        }
        for bad in ["http://huggingface.co", "http://10.0.0.1", "http://127.0.0.1.nip.io", "ftp://localhost", "", "x"] {
            assert!(!may_travel(bad), "{bad}");
        }
        assert!(!may_travel("http://localhost@evil.example/"));
    }
}
