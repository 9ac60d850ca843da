//! Names of checkpoint files: the requested one, and those of other work with a fingerprint in
//! them.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::words::hex;

/// Number of bytes in a fingerprint.
const FINGERPRINT_BYTES: usize = 8;

pub(super) fn fingerprint(identity: &Map<String, Value>) -> String {
    let identity = serde_json::to_string(identity).expect("JSON");
    hex(&Sha256::digest(identity)[..FINGERPRINT_BYTES])
}

/// The file name of work with this fingerprint if the requested name belongs to other work.
pub(super) fn fingerprinted(requested: &str, fingerprint: &str) -> String {
    format!("{requested}.{fingerprint}")
}

/// True if `name` is a possible file name of work with the checkpoint `requested`.
pub fn is_checkpoint_of(requested: &str, name: &str) -> bool {
    let is_fingerprint = |fingerprint: &str| {
        fingerprint.len() == 2 * FINGERPRINT_BYTES
            && fingerprint.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    name == requested
        || name.strip_prefix(requested).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_fingerprint)
}

/// Existing file names of work with the checkpoint `requested`: that one, and those with a
/// fingerprint.
pub fn checkpoints(requested: &str) -> Vec<String> {
    let (folder, file) = requested.rsplit_once('/').unwrap_or((".", requested));
    let others = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (name != file && is_checkpoint_of(file, &name)).then(|| format!("{requested}{}", &name[file.len()..]))
    });
    let mut names: Vec<String> = std::iter::once(requested.to_string()).chain(others).collect();
    names.sort();
    names
}
