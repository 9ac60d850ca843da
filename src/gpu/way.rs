//! The SSH login of a machine as part of a provider's identity, so that a later process can connect
//! with it alone.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::remote::trust::fingerprint;
use crate::remote::{SshTarget, Target};

/// The address of a machine and the login, as the user named it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// As `Target` prints it.
    host: String,
    key: Option<PathBuf>,
    fingerprint: Option<String>,
    known_hosts: Option<PathBuf>,
}

impl Way {
    /// # Errors
    /// An invalid address or fingerprint.
    pub fn new(target: &SshTarget) -> Result<Self> {
        let SshTarget { host, key, fingerprint: known, known_hosts } = target;
        let fingerprint = known.as_deref().map(fingerprint).transpose()?;
        let host = Target::parse(host)?.to_string();
        Ok(Self { host, key: key.clone(), fingerprint, known_hosts: known_hosts.clone() })
    }

    /// The address, without the login.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn target(&self) -> SshTarget {
        let Self { host, key, fingerprint, known_hosts } = self.clone();
        SshTarget { host, key, fingerprint, known_hosts }
    }
}

/// The form in the ledger: `user@host:port;key=FILE;fingerprint=SHA256:…;known_hosts=FILE`.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &PathBuf| path.display().to_string();
        let words = [
            ("key", self.key.as_ref().map(path)),
            ("fingerprint", self.fingerprint.clone()),
            ("known_hosts", self.known_hosts.as_ref().map(path)),
        ];
        write!(f, "{}", self.host)?;
        words
            .into_iter()
            .filter_map(|(word, value)| Some((word, value?)))
            .try_for_each(|(word, value)| write!(f, ";{word}={value}"))
    }
}

/// # Errors
/// Words that `Display` does not write.
impl FromStr for Way {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(';');
        let host = words.next().unwrap_or_default().to_string();
        let mut way = Self { host, key: None, fingerprint: None, known_hosts: None };
        for word in words {
            match word.split_once('=') {
                Some(("key", file)) => way.key = Some(file.into()),
                Some(("fingerprint", known)) => way.fingerprint = Some(known.to_string()),
                Some(("known_hosts", file)) => way.known_hosts = Some(file.into()),
                _ => return Err(Error::of(Failure::NoWay(word.to_string()))),
            }
        }
        Ok(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_as_it_is_written() {
        let hash = format!("SHA256:{}+b", "a".repeat(41));
        for text in [
            &format!("me@login.cluster:2222;key=/k;fingerprint={hash}"),
            "me@login;known_hosts=/h",
            "alias",
            "[::1]:2222;key=~/.ssh/k",
        ] {
            let way: Way = text.parse().unwrap();
            assert_eq!(way.to_string(), *text);
            assert_eq!(Way::new(&way.target()).unwrap(), way);
        }
        let given = SshTarget {
            host: "ssh://me@[::1]:22/".to_string(),
            key: None,
            fingerprint: Some(format!("256 {hash} me@there (ED25519)")),
            known_hosts: None,
        };
        assert_eq!(Way::new(&given).unwrap().to_string(), format!("me@[::1]:22;fingerprint={hash}"));
        assert!("me@login;password=x".parse::<Way>().is_err());
        let wrong: Way = "a:b".parse().unwrap();
        assert!(Way::new(&wrong.target()).is_err());
    }
}
