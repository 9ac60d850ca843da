//! Partial copies: each belongs to one transfer at a time, and is found again after an
//! interruption.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::this;
use crate::disk;

/// The largest number of simultaneous transfers of the same file to the same place, each with its
/// own name.
const MOST: usize = 100;

/// A file that no other process or thread of this computer uses until it is closed.
pub(super) struct Claim {
    pub file: File,
    pub path: PathBuf,
}

/// Opens or creates the first of these files that nobody holds and that is not a link.
pub(super) fn claim(candidates: impl Iterator<Item = PathBuf>) -> io::Result<Claim> {
    for path in candidates {
        match hold(&path) {
            Ok(Some(file)) => return Ok(Claim { file, path }),
            Ok(None) => (),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => (),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many copies of the same file are under way"))
}

fn hold(path: &Path) -> io::Result<Option<File>> {
    // A link leads elsewhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)?;
    // Its holder may have renamed it in between.
    let ours = disk::try_lock(&file) && disk::is_same_file(&file, path) && file.metadata()?.is_file();
    Ok(ours.then_some(file))
}

/// `NAME.part`, `NAME.1.part`, … for the file `path`.
pub(super) fn beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    (0..MOST).map(move |number| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 0 { ".part".to_string() } else { format!(".{number}.part") });
        PathBuf::from(name)
    })
}

/// The name of a partial file on a machine. The next transfer of the same content from here to the
/// same place gets the same name and continues. Simultaneous transfers have different names.
pub(super) struct Sending {
    pub name: String,
    claim: Option<Claim>,
}

impl Sending {
    pub(super) fn new(machine: &str, to: &str, content: &str) -> Self {
        let folder = std::env::current_dir().unwrap_or_default().display().to_string();
        // SAFETY: it only returns the user's id.
        let user = unsafe { libc::getuid() };
        let what = format!("{:?}\n{user}\n{folder}\n{machine}\n{to}\n{content}", this::identity());
        let hash = format!("{:x}", Sha256::digest(what));
        let names = (0..MOST).map(|number| format!("{}-{number}", &hash[..16]));
        let claim = places().and_then(|places| {
            fs::create_dir_all(&places).ok()?;
            claim(names.map(|name| places.join(name))).ok()
        });
        let name = match &claim {
            Some(claim) => claim.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => format!("{:032x}", rand::random::<u128>()),
        };
        Self { name, claim }
    }

    /// The transfer is complete, and its name is not needed any more.
    pub(super) fn done(self) {
        if let Some(claim) = self.claim {
            let _ = fs::remove_file(&claim.path);
        }
    }
}

/// The folder of empty files that are locked by the senders.
fn places() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    Some(named.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?.join("outlier").join("sending"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_held_by_one_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let first = claim(beside(&path)).unwrap();
        let second = claim(beside(&path)).unwrap();
        assert_eq!(first.path, folder.path().join("x.part"));
        assert_eq!(second.path, folder.path().join("x.1.part"));
        drop(first);
        assert_eq!(claim(beside(&path)).unwrap().path, folder.path().join("x.part"));
    }

    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("x"), folder.path().join("other"));
        std::os::unix::fs::symlink(&other, folder.path().join("x.part")).unwrap();
        assert_eq!(claim(beside(&path)).unwrap().path, folder.path().join("x.1.part"));
        assert!(!other.exists());
    }
}
