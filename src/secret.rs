//! What must not be seen: values that cannot be printed and that only `expose` gives out, and the names of files that hold
//! such values.

use std::fmt;
use std::path::Path;

/// Files and folders that hold keys, tokens or passwords by custom; all that begins with `.env` is one as well.
const SECRET: &str = ".git .ssh .keys .gnupg .aws .azure .kube .docker .runpod .huggingface .netrc _netrc .npmrc .pypirc .pgpass \
                      .my.cnf .vault-token .git-credentials .htpasswd authorized_keys credentials credentials.json \
                      credentials.toml stored_tokens";
/// What names of private keys end with.
const KEY_ENDS: &[&str] = &[".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk"];

/// Whether a part of `path` is a name that secrets have: such files are neither read into a script, nor sent to a machine,
/// nor accepted from one. It judges the name only: of a link, ask for where it leads as well.
pub fn secret_name(path: &Path) -> bool {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().to_lowercase()).collect();
    let is_secret = |part: &String| {
        part.starts_with(".env")
            || SECRET.split(' ').any(|name| name == part)
            || part.starts_with("ssh_host_")
            // As ssh-keygen calls its files: id_ed25519, id_rsa_work, id_work.pub.
            || (part.starts_with("id_") && !part.trim_end_matches(".pub").contains('.'))
            || KEY_ENDS.iter().any(|end| part.ends_with(end))
    };
    // Names that are secret only there: the hub's token, passwords of the system.
    let there = |pair: &[String]| pair == ["huggingface", "token"] || pair == ["etc", "shadow"];
    parts.iter().any(is_secret) || parts.windows(2).any(there)
}

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
    }
}
