//! The SSH login of a machine as part of the provider's name in the ledger, so that a later process
//! can connect with the name alone.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::remote::trust::fingerprint;
use crate::remote::{SshTarget, Target};

/// `KIND:user@host:port` and the login, as the user named it.
///
/// # Errors
/// An invalid address.
pub(super) fn name_of(kind: &str, target: &SshTarget) -> Result<String> {
    let mut name = format!("{kind}:{}", Target::parse(&target.host)?);
    let path = |path: &PathBuf| path.display().to_string();
    let words = [
        ("key", target.key.as_ref().map(path)),
        ("fingerprint", target.fingerprint.as_deref().map(fingerprint).transpose()?),
        ("known_hosts", target.known_hosts.as_ref().map(path)),
    ];
    for (word, value) in words {
        if let Some(value) = value {
            name += &format!(";{word}={value}");
        }
    }
    Ok(name)
}

/// Parses the part after `KIND:`.
///
/// # Errors
/// Words that `name_of` does not write.
pub(super) fn target(way: &str) -> Result<SshTarget> {
    let mut words = way.split(';');
    let host = words.next().unwrap_or_default().to_string();
    let mut target = SshTarget { host, key: None, fingerprint: None, known_hosts: None };
    for word in words {
        match word.split_once('=') {
            Some(("key", file)) => target.key = Some(file.into()),
            Some(("fingerprint", known)) => target.fingerprint = Some(known.to_string()),
            Some(("known_hosts", file)) => target.known_hosts = Some(file.into()),
            _ => return Err(Error::bad_argument(format!("\"{word}\" is not a way into a machine"))),
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_machine_is_in_its_name() {
        let hash = format!("SHA256:{}+b", "a".repeat(41));
        for name in [
            &format!("slurm:me@login.cluster:2222;key=/k;fingerprint={hash}"),
            "slurm:me@login;known_hosts=/h",
            "ssh:alias",
            "ssh:[::1]:2222;key=~/.ssh/k",
        ] {
            let (kind, way) = name.split_once(':').unwrap();
            assert_eq!(name_of(kind, &target(way).unwrap()).unwrap(), *name);
        }
        let written = SshTarget {
            host: "ssh://me@[::1]:22/".to_string(),
            key: None,
            fingerprint: Some(format!("256 {hash} me@there (ED25519)")),
            known_hosts: None,
        };
        assert_eq!(name_of("slurm", &written).unwrap(), format!("slurm:me@[::1]:22;fingerprint={hash}"));
        assert!(target("me@login;password=x").is_err() && name_of("ssh", &target("a:b").unwrap()).is_err());
    }
}
