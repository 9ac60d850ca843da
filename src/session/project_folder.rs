//! The project's folder on a machine.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::watched::{GiveUp, Watched};
use crate::remote::{Machine, quoted};

/// The largest short answer in bytes, including a few hashes.
pub(super) const SHORT: u64 = 1 << 20;

/// The project's name, from its folder's name and path.
pub(super) fn project_name() -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    let name: String = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(24)
        .collect();
    let hash = format!("{:x}", Sha256::digest(folder.display().to_string()));
    format!("{name}-{}", &hash[..8])
}

/// The folder of this project on a machine, as its shell names it.
pub(super) fn root() -> String {
    format!("~/.outlier/projects/{}", project_name())
}

/// The project's folder on a machine, where calls read and write.
pub(super) struct ProjectFolder {
    pub machine: Arc<dyn Machine>,
    pub root: String,
    /// How long a file transfer may stall.
    pub stall: Duration,
}

impl ProjectFolder {
    /// The command, run in the folder.
    pub(super) fn in_project(&self, command: &str) -> String {
        format!("mkdir -p {0} && cd {0} && {command}", quoted(&self.root))
    }

    /// A path in the folder.
    pub(super) fn path(&self, path: &str) -> String {
        if path.starts_with('/') || path.starts_with("~/") { path.to_string() } else { format!("{}/{path}", self.root) }
    }

    /// The machine with a limit of `most` bytes in addition to short answers.
    pub(super) fn within<'a>(&self, most: u64, give_up: &'a GiveUp<'a>) -> Watched<&'a GiveUp<'a>> {
        Watched::new(self.machine.clone(), most.saturating_add(SHORT), Some(self.stall), give_up)
    }
}
