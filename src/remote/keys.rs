//! The key pair of a run, so that nobody's own key has to be on a rented machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

use super::failure::Failure;
use crate::disk;
use crate::error::{Error, Result};
use crate::outside;

/// The largest file of a key pair in bytes.
const MOST: u64 = 1 << 16;

/// The public line of the ed25519 key in `file`, which is created (mode 600) if it does not exist.
pub fn key_pair(file: &Path) -> Result<String> {
    let failed = |doing, source| Error::of(Failure::KeyPair { doing, file: file.to_path_buf(), source });
    if !file.exists() {
        let writing = |e: std::io::Error| Error::io(format!("writing {}", file.display()), &e);
        let pair = Ed25519Keypair::from_seed(&rand::random());
        let key = PrivateKey::new(KeypairData::Ed25519(pair), "outlier").map_err(|e| failed("making", e))?;
        let text = key.to_openssh(LineEnding::LF).map_err(|e| failed("making", e))?;
        if let Some(folder) = file.parent() {
            if folder.is_symlink() {
                return Err(Error::of(Failure::KeyFolderIsLink(folder.to_path_buf())));
            }
            fs::create_dir_all(folder).map_err(writing)?;
            let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
        }
        disk::write_secret_once(file, text.as_bytes())?;
    }
    let reading = |e: std::io::Error| Error::io(format!("reading {}", file.display()), &e);
    let text = outside::read(file, MOST).map_err(reading)?;
    let key = PrivateKey::from_openssh(text).map_err(|e| failed("reading", e))?;
    key.public_key().to_openssh().map_err(|e| failed("reading", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_the_place_of_a_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let line = key_pair(&file).unwrap();
        assert_eq!(key_pair(&file).unwrap(), line);
        fs::remove_file(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        assert!(key_pair(&file).unwrap_err().message.contains("not a regular file"));
    }
}
