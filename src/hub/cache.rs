//! The cache folder of one repository, laid out as the Python package huggingface_hub does: `blobs/` by hash, `snapshots/`
//! with relative links into them, locks beside the repositories.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Between two looks at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// One commit of a repository in the cache.
pub struct Snapshot {
    /// `…/hub/models--owner--name`
    repository: PathBuf,
    commit: String,
}

/// Held until dropped.
pub struct Lock(#[allow(dead_code)] File);

impl Snapshot {
    /// From the folder of the snapshot, `…/models--owner--name/snapshots/<commit>`.
    pub fn of(folder: &Path) -> Option<Self> {
        let commit = folder.file_name()?.to_str()?.to_string();
        let repository = folder.parent()?.parent()?.to_path_buf();
        Some(Self { repository, commit })
    }

    /// Where a file of this commit is, or will be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.repository.join("snapshots").join(&self.commit).join(name)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.repository.join("blobs").join(etag)
    }

    /// What has arrived of a blob so far, from its first byte on.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.repository.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Makes `name` a link to the blob, in one step.
    pub fn link(&self, name: &str, etag: &str) -> Result<()> {
        let file = self.file(name);
        let linking = |e: std::io::Error| Error::io(format!("writing {}", file.display()), &e);
        let up = "../".repeat(2 + name.matches('/').count());
        let fresh = self.file(&format!("{name}.{}.link", std::process::id()));
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(linking)?;
        }
        let _ = std::fs::remove_file(&fresh);
        match std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &fresh) {
            Ok(()) => std::fs::rename(&fresh, &file).map_err(linking),
            // A file system without links: the blob itself moves, as in the Python cache.
            Err(_) => std::fs::rename(self.blob(etag), &file).map_err(linking),
        }
    }

    /// Waits until no other process downloads this blob. Python's lock is the same one.
    pub fn lock(&self, etag: &str, name: &str, progress: &dyn Progress) -> Result<Lock> {
        let missing = || Error::not_found(format!("{}: not a cache folder", self.repository.display()));
        let (Some(cache), Some(repository)) = (self.repository.parent(), self.repository.file_name()) else {
            return Err(missing());
        };
        let folder = cache.join(".locks").join(repository);
        let path = folder.join(format!("{etag}.lock"));
        let locking = |e: std::io::Error| Error::io(format!("locking {}", path.display()), &e);
        std::fs::create_dir_all(&folder).map_err(locking)?;
        let file = File::options().create(true).append(true).open(&path).map_err(locking)?;
        let mut told = false;
        // Safety: the descriptor is that of an open file.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = std::io::Error::last_os_error();
            match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => (),
                _ => return Err(locking(error)),
            }
            if progress.interrupted() {
                return Err(Error::interrupted());
            }
            if !told {
                progress.event(Event::Warning(format!("another process is downloading {name}; waiting for it")));
                told = true;
            }
            std::thread::sleep(LOCK_POLL);
        }
        Ok(Lock(file))
    }
}
