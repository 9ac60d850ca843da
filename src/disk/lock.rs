//! File locks of the operating system. A lock ends with the process that holds it, however the
//! process ends.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Time between two attempts to take a lock that another process holds.
const POLL: Duration = Duration::from_millis(20);
/// The longest time in which a started process may keep locks of the one that starts it.
const START_OF_A_PROCESS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Several holders at the same time may share the lock.
    Shared,
    Exclusive,
}

/// A lock that is held until it is dropped, when its file is removed. The file that a killed
/// process leaves behind blocks nobody.
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// True if `path` still names this open file: the file may have been removed or replaced since it
/// was opened.
pub fn is_same_file(file: &File, path: &Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let open = file.metadata().map(id);
    open.is_ok_and(|open| std::fs::symlink_metadata(path).map(id).is_ok_and(|there| there == open))
}

/// Tries to lock an open file for as long as it stays open. Returns false if another process, or
/// another part of this one, holds the lock. Some network file systems have no locks: there it
/// returns true.
///
/// A process that is just being started has copies of all open files until it runs its program,
/// and keeps their locks that long. Such a lock is waited for.
pub fn try_lock(file: &File) -> bool {
    let start = Instant::now();
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        if start.elapsed() > START_OF_A_PROCESS {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

impl Lock {
    /// Takes the lock at `path`, whose folder must exist. While another process holds it,
    /// `while_waiting` is called again and again, and may end the wait with an error.
    pub fn take(path: &Path, mode: LockMode, mut while_waiting: impl FnMut() -> Result<()>) -> Result<Self> {
        loop {
            match Self::attempt(path, mode)? {
                Some(lock) => return Ok(lock),
                None => while_waiting()?,
            }
            std::thread::sleep(POLL);
        }
    }

    /// As `take`, without waiting. Returns None if another process holds the lock.
    pub fn attempt(path: &Path, mode: LockMode) -> Result<Option<Self>> {
        let locking = |e: std::io::Error| Error::io(format!("locking {}", path.display()), &e);
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).write(true).read(true).custom_flags(libc::O_NOFOLLOW).open(path)
        };
        loop {
            let file = open().map_err(locking)?;
            let locked = match mode {
                LockMode::Shared => file.try_lock_shared(),
                LockMode::Exclusive => file.try_lock(),
            };
            if let Err(TryLockError::WouldBlock) = locked {
                return Ok(None);
            }
            // The previous holder may have removed the file between opening and locking. Such a
            // lock excludes nobody, so it is taken again.
            if is_same_file(&file, path) {
                return Ok(Some(Self { file, path: path.to_path_buf() }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Other processes may share the lock. The last holder removes the file.
        if self.file.try_lock().is_ok() && is_same_file(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_starting_process_still_has_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (held, wanted) = (File::open(file.path()).unwrap(), File::open(file.path()).unwrap());
        assert!(try_lock(&held) && !try_lock(&wanted), "another part of this process has it");
        let soon = std::thread::spawn(move || {
            std::thread::sleep(POLL);
            drop(held);
        });
        assert!(try_lock(&wanted));
        soon.join().unwrap();
    }

    #[test]
    fn a_lock_is_held_by_one_or_shared_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".a.lock");
        let taken = |mode: LockMode| Lock::attempt(&path, mode).unwrap();
        let alone = taken(LockMode::Exclusive).unwrap();
        assert!(taken(LockMode::Exclusive).is_none() && taken(LockMode::Shared).is_none());
        drop(alone);
        assert!(!path.exists());
        let (one, two) = (taken(LockMode::Shared).unwrap(), taken(LockMode::Shared).unwrap());
        assert!(taken(LockMode::Exclusive).is_none());
        drop(one);
        assert!(path.exists());
        drop(two);
        assert!(!path.exists());
        // A killed process leaves such a file.
        std::fs::write(&path, "").unwrap();
        drop(taken(LockMode::Exclusive).unwrap());
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
                        let lock = Lock::take(&path, LockMode::Exclusive, || Ok(())).unwrap();
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
