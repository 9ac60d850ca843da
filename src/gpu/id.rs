//! The identity of a provider of machines: whose machines they are, and the way there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::tenure::Tenure;
use super::way::Way;
use crate::error::{Error, Result};

/// The kinds of providers that a script can ask for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// The user's own machines.
    Ssh,
    Slurm,
    RunPod,
}

impl ProviderKind {
    /// The name in scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Slurm => "slurm",
            Self::RunPod => "runpod",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A provider of machines. The ledger stores it as text, as `stored` makes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ProviderId {
    RunPod,
    /// A cluster: the one of this computer, or the one of a login node.
    Slurm(Option<Way>),
    /// A machine of the user's own, where nothing is rented: workers are its machines.
    Own(Way),
    /// What another version of this program has written.
    Unknown(String),
}

impl ProviderId {
    /// What its machines are to their user.
    pub fn tenure(&self) -> Tenure {
        match self {
            Self::Own(_) => Tenure::Own,
            Self::RunPod | Self::Slurm(_) | Self::Unknown(_) => Tenure::Rented,
        }
    }

    /// The name of its kind, as scripts write it.
    pub fn kind(&self) -> &str {
        match self {
            Self::RunPod => ProviderKind::RunPod.name(),
            Self::Slurm(_) => ProviderKind::Slurm.name(),
            Self::Own(_) => ProviderKind::Ssh.name(),
            Self::Unknown(text) => text,
        }
    }

    /// The name in tables and results. Machines of the user's own have their address as id.
    pub fn short(&self) -> String {
        match self {
            Self::Own(_) => self.kind().to_string(),
            Self::RunPod | Self::Slurm(_) | Self::Unknown(_) => self.to_string(),
        }
    }

    /// The form in the ledger, with the login.
    pub fn stored(&self) -> String {
        match self {
            Self::Slurm(Some(way)) | Self::Own(way) => format!("{}:{way}", self.kind()),
            Self::RunPod | Self::Slurm(None) | Self::Unknown(_) => self.kind().to_string(),
        }
    }
}

/// For people: without the login.
impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slurm(Some(way)) | Self::Own(way) => write!(f, "{}:{}", self.kind(), way.host()),
            Self::RunPod | Self::Slurm(None) | Self::Unknown(_) => f.write_str(self.kind()),
        }
    }
}

/// # Errors
/// `bad_argument` for text that `stored` does not make.
impl FromStr for ProviderId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == ProviderKind::RunPod.name() => Ok(Self::RunPod),
            None if text == ProviderKind::Slurm.name() => Ok(Self::Slurm(None)),
            Some((kind, way)) if kind == ProviderKind::Slurm.name() => way.parse().map(Some).map(Self::Slurm),
            Some((kind, way)) if kind == ProviderKind::Ssh.name() => way.parse().map(Self::Own),
            _ => Err(Error::of(Failure::UnknownProvider(text.to_string()))),
        }
    }
}

/// A row that cannot be read must not hide the others: the machine in it may cost money.
impl From<String> for ProviderId {
    fn from(text: String) -> Self {
        text.parse().unwrap_or(Self::Unknown(text))
    }
}

impl From<ProviderId> for String {
    fn from(id: ProviderId) -> Self {
        id.stored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that earlier versions have written into ledgers.
    const STORED: [&str; 7] = [
        "runpod",
        "slurm",
        "slurm:me@login.cluster:2222;key=/k;fingerprint=SHA256:x",
        "slurm:me@login;known_hosts=/h",
        "ssh:alias",
        "ssh:[::1]:2222;key=~/.ssh/k",
        "ssh:localhost",
    ];

    #[test]
    fn an_identity_is_stored_as_it_was() {
        for text in STORED {
            let id: ProviderId = text.parse().unwrap();
            assert_eq!(id.stored(), text);
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<ProviderId>(&format!("{text:?}")).unwrap(), id);
            assert!(!id.to_string().contains(';'), "people are not shown the login: {id}");
        }
        assert_eq!("slurm:me@login;key=/k".parse::<ProviderId>().unwrap().to_string(), "slurm:me@login");
    }

    #[test]
    fn what_another_version_has_written_is_kept_and_is_no_provider() {
        for text in ["cloud9", "ssh", "ssh:me@login;password=x", "runpod:x", ""] {
            assert!(text.parse::<ProviderId>().is_err(), "{text}");
            assert_eq!(ProviderId::from(text.to_string()), ProviderId::Unknown(text.to_string()));
            assert_eq!(ProviderId::from(text.to_string()).stored(), text);
        }
    }

    #[test]
    fn only_machines_of_the_user_are_own() {
        let own = STORED.map(|text| text.parse::<ProviderId>().unwrap().tenure() == Tenure::Own);
        assert_eq!(own, [false, false, false, false, true, true, true]);
    }
}
