//! Unfinished copies: each belongs to one copying at a time and is found again when that was broken off.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::this;
use crate::disk;

/// So many copies of the same file to the same place are under way at once, each with a name of its own.
const MOST: usize = 100;

/// A file that no other process or thread of this computer works on until it is closed.
pub struct Claim {
    pub file: File,
    pub path: PathBuf,
}

/// Opens, or makes, the first of these files that nobody holds and that is no link.
pub fn claim(candidates: impl Iterator<Item = PathBuf>) -> io::Result<Claim> {
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
    // A link at its place leads elsewhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)?;
    // Whoever held it may have given it its final name in between.
    let ours = disk::try_lock(&file) && disk::is_same_file(&file, path) && file.metadata()?.is_file();
    Ok(ours.then_some(file))
}

/// `NAME.part`, `NAME.1.part`, … for what arrives at `path`.
pub fn beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    (0..MOST).map(move |number| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 0 { ".part".to_string() } else { format!(".{number}.part") });
        PathBuf::from(name)
    })
}

/// The name of an unfinished file on a machine. The next copying of the same content from here to the same place gets the
/// same name, so that it goes on where this one ended; no two that are under way have the same.
pub struct Sending {
    pub name: String,
    claim: Option<Claim>,
}

impl Sending {
    pub fn new(machine: &str, to: &str, content: &str) -> Self {
        let folder = std::env::current_dir().unwrap_or_default().display().to_string();
        // SAFETY: it only tells who this process is.
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

    /// It has arrived: nothing is to be found again.
    pub fn done(self) {
        if let Some(claim) = self.claim {
            let _ = fs::remove_file(&claim.path);
        }
    }
}

/// Where it is noted who is sending: files without content, held while it lasts.
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
