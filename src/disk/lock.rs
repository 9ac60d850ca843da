//! Locks of the operating system: they end with the process that holds them, however it ends.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// Between two looks at a lock that another process holds.
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Beside others that hold it so.
    Shared,
    Alone,
}

/// Held until dropped. Its file is removed then; the one that a killed process leaves stands in nobody's way.
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Whether `path` names this open file: it may have been removed or replaced since it was opened.
pub fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let open = file.metadata().map(id);
    open.is_ok_and(|open| std::fs::symlink_metadata(path).map(id).is_ok_and(|there| there == open))
}

/// Takes the lock of an open file for as long as it is open; false where another process, or another part of this one, has
/// it. Some network file systems have no locks: there everything is free.
pub fn is_ours(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

impl Lock {
    /// Takes the lock at `path`, whose folder must exist. While another process has it, `waits` is called now and then and may
    /// end the waiting with an error.
    pub fn take(path: &Path, hold: Hold, mut waits: impl FnMut() -> Result<()>) -> Result<Self> {
        loop {
            match Self::attempt(path, hold)? {
                Some(lock) => return Ok(lock),
                None => waits()?,
            }
            std::thread::sleep(POLL);
        }
    }

    /// The same without waiting: nothing where another has it.
    pub fn attempt(path: &Path, hold: Hold) -> Result<Option<Self>> {
        let locking = |e: std::io::Error| Error::io(format!("locking {}", path.display()), &e);
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).write(true).read(true).custom_flags(libc::O_NOFOLLOW).open(path)
        };
        loop {
            let file = open().map_err(locking)?;
            let locked = match hold {
                Hold::Shared => file.try_lock_shared(),
                Hold::Alone => file.try_lock(),
            };
            if let Err(TryLockError::WouldBlock) = locked {
                return Ok(None);
            }
            // Between opening and locking, the one who had it may have removed the file: then this lock locks nothing.
            if is_at(&file, path) {
                return Ok(Some(Self { file, path: path.to_path_buf() }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Others may share it: who is last removes the file.
        if self.file.try_lock().is_ok() && is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_or_shared_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".a.lock");
        let taken = |hold: Hold| Lock::attempt(&path, hold).unwrap();
        let alone = taken(Hold::Alone).unwrap();
        assert!(taken(Hold::Alone).is_none() && taken(Hold::Shared).is_none());
        drop(alone);
        assert!(!path.exists());
        let (one, two) = (taken(Hold::Shared).unwrap(), taken(Hold::Shared).unwrap());
        assert!(taken(Hold::Alone).is_none());
        drop(one);
        assert!(path.exists());
        drop(two);
        assert!(!path.exists());
        // What a killed process has left.
        std::fs::write(&path, "").unwrap();
        drop(taken(Hold::Alone).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn many_threads_are_never_in_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".a.lock");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let lock = Lock::take(&path, Hold::Alone, || Ok(())).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
