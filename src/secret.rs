//! Secrets: values that cannot be printed and that only `expose` returns, their sources and
//! permitted destinations, and the names of files that hold them.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;

/// Files and folders that by custom hold keys, tokens or passwords. All names that begin with
/// `.env` count, too.
const SECRET: &str = ".git .ssh .keys .gnupg .aws .azure .kube .docker .runpod .huggingface .netrc _netrc .npmrc .pypirc .pgpass \
                      .my.cnf .vault-token .git-credentials .htpasswd authorized_keys credentials credentials.json \
                      credentials.toml stored_tokens";
/// The usual extensions of private keys.
const KEY_ENDS: &[&str] = &[".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk"];

/// Returns whether a component of `path` is the usual name of a secret. Such files are neither read
/// into a script, nor sent to a machine, nor accepted from one. Only the name is checked: for a
/// link, the caller checks its target as well.
pub fn secret_name(path: &Path) -> bool {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().to_lowercase()).collect();
    let is_secret = |part: &String| {
        part.starts_with(".env")
            || SECRET.split(' ').any(|name| name == part)
            || part.starts_with("ssh_host_")
            // These are the names that ssh-keygen gives: id_ed25519, id_rsa_work, id_work.pub.
            || (part.starts_with("id_") && !part.trim_end_matches(".pub").contains('.'))
            || KEY_ENDS.iter().any(|end| part.ends_with(end))
    };
    // These names are secret in one folder only: the hub's token and the passwords of the system.
    let there = |pair: &[String]| pair == ["huggingface", "token"] || pair == ["etc", "shadow"];
    parts.iter().any(is_secret) || parts.windows(2).any(there)
}

/// Returns whether a component of `path` is the ledger of rented machines, or looks like one of the
/// files that belong to it.
pub fn ledger_name(path: &Path) -> bool {
    path.iter().any(|part| part.to_string_lossy().to_lowercase().starts_with("gpus.sqlite"))
}

/// An API key or access token. It cannot be serialised, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns None for a blank text.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_string()))
    }

    /// Returns the value itself. It may be used only in the header or stream that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The variables of the user's `.env` file. They are kept here and not in the environment, so that
/// child processes do not inherit them and threads that read the environment at the same time are
/// not disturbed.
static KEPT: OnceLock<Vec<(String, Secret)>> = OnceLock::new();

/// Makes `named` fall back on these secrets if the environment has no variable of the name. Only
/// the first call has an effect.
pub fn keep(secrets: Vec<(String, Secret)>) {
    let _ = KEPT.set(secrets);
}

/// Returns the secret in an environment variable, or else the kept one of that name. An empty
/// variable hides the kept one.
pub fn named(variable: &str) -> Option<Secret> {
    match std::env::var_os(variable) {
        Some(value) => Secret::new(value.to_str()?),
        None => KEPT.get()?.iter().find(|(name, _)| name == variable).map(|(_, secret)| secret.clone()),
    }
}

/// Returns whether a secret may be sent to this address: over https, or to this computer itself.
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

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            ".env",
            "sub/.env",
            "a/.env.local/b",
            ".ENV",
            ".git/config",
            "keys/id_ed25519",
            "a/id_rsa.pub",
            "a.pem",
            "B.PEM",
            "results/.keys/3f",
            "~/.cache/huggingface/token",
            "/etc/shadow",
            ".ssh",
            "./.ssh/known_hosts",
            "server.key",
        ] {
            assert!(secret_name(Path::new(name)), "{name}");
        }
        for name in
            ["scripts/identity.rhai", "results/x/config.json", "token", "models/a/tokenizer.json", "id_map.json", "env"]
        {
            assert!(!secret_name(Path::new(name)), "{name}");
        }
        for name in ["gpus.sqlite", "results/gpus.sqlite-journal", "results/GPUS.SQLITE/x", "gpus.sqlite_of_mine"] {
            assert!(ledger_name(Path::new(name)), "{name}");
        }
        assert!(!ledger_name(Path::new("results/gpus.csv")));
    }
}
