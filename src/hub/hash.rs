//! The hash by which the hub identifies the content of a file.

use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::names::is_hex;
use crate::outside;

/// Bytes per read.
const READ: usize = 1 << 20;

/// The hash of a file's content in lower-case hexadecimal digits. It is safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// SHA-256 of the bytes, 64 digits, for files that the hub stores outside of git.
    Sha256(String),
    /// The hash of a git blob, 40 digits: SHA-1 of `blob <length>\0` and the bytes.
    Git(String),
}

impl Hash {
    /// Parses an ETag without quotes, or the name of a blob. None if it is neither kind of hash.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.len() {
            64 if is_hex(text, 64) => Some(Self::Sha256(text.to_string())),
            40 if is_hex(text, 40) => Some(Self::Git(text.to_string())),
            _ => None,
        }
    }

    pub(super) fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }

    /// Its name in a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git hash",
        }
    }

    /// A hasher of the same kind for a file of `bytes` bytes.
    pub(super) fn hasher(&self, bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }

    /// The hash of the same kind of other data, in digits.
    pub(super) fn same_of(&self, data: &[u8]) -> String {
        let mut hasher = self.hasher(data.len() as u64);
        hasher.update(data);
        hasher.digits()
    }

    /// True if the file at `path` has this content. `read` is called with the number of bytes read,
    /// and may stop it.
    pub(super) fn is_of_file<E>(&self, path: &Path, mut read: impl FnMut(u64) -> Result<(), E>) -> Result<bool, E> {
        let Ok(file) = outside::open(path) else { return Ok(false) };
        let Ok(metadata) = file.metadata() else { return Ok(false) };
        // A file that grows is read no further than it was long.
        let mut file = file.take(metadata.len());
        let (mut hasher, mut buffer) = (self.hasher(metadata.len()), vec![0; READ]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher.digits() == self.digits()),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    read(count as u64)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(_) => return Ok(false),
            }
        }
    }
}

pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(data),
            Self::Git(hasher) => hasher.update(data),
        }
    }

    pub(super) fn digits(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hashes_of_a_known_file() {
        // The output of `git hash-object` and `sha256sum` for "hello\n".
        let git = Hash::parse("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        let sha = Hash::parse("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03").unwrap();
        for hash in [git, sha] {
            assert_eq!(hash.same_of(b"hello\n"), hash.digits());
            assert_ne!(hash.same_of(b"hello"), hash.digits());
        }
        for bad in ["", "../../x", "CE013625030ba8dba906f756967f9e9ca394464a", "ce01", &"g".repeat(64)] {
            assert_eq!(Hash::parse(bad), None, "{bad}");
        }
    }
}
