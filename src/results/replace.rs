//! The folder of an analysis is replaced as a whole, in one step, by one run at a time.
//!
//! The new files are written into a hidden folder beside it, `.NAME.partial-COMPUTER-…`, and
//! flushed. Then the two folders are exchanged. A reader therefore finds either the whole earlier
//! analysis or the whole new one, and a run that fails or is killed leaves the earlier one
//! unchanged. Other contents of the folder (notes, tables, figures, activations that a run is
//! writing at the moment) belong to neither and stay: files get a second name in the new folder
//! before the exchange, and folders, which cannot have two names, are moved right after it. If a
//! run is killed in between, they remain in the hidden folder, from which the next run that saves
//! or loads this name restores them.
//!
//! While a run saves, it holds the lock `.NAME.lock` beside the folder. If the name is nested, it
//! also holds shared locks of the names above it, which may be those of other analyses.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::names::{FINAL, is_own};
use crate::disk::{self, Lock, LockMode};
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// After this time of waiting for another run the user is told, and after `PATIENCE` this run gives
/// up.
const TELL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(600);

/// An analysis whose files are being written. If it is dropped before it is finished, its files are
/// removed.
pub(super) struct Replacement {
    folder: PathBuf,
    /// The hidden folder beside it, with the new files.
    staged: PathBuf,
    _locks: Vec<Lock>,
}

/// The parent of the folder, and the folder's own name.
fn parts(folder: &Path) -> (&Path, String) {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (parent, folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

fn lock_of(folder: &Path) -> PathBuf {
    let (parent, name) = parts(folder);
    parent.join(format!(".{name}.lock"))
}

fn staged_prefix(name: &str) -> String {
    disk::temporary_prefix(&format!(".{name}.partial"))
}

/// The prefix of an earlier analysis's name on a file system that cannot exchange two folders in
/// one step.
fn aside_prefix(name: &str) -> String {
    disk::temporary_prefix(&format!(".{name}.earlier"))
}

impl Replacement {
    /// Waits until no other run saves the analysis `name` below `root`, or one that contains it,
    /// and creates the folder for the new files.
    ///
    /// # Errors
    /// `timeout` if another run holds the lock for too long, `interrupted` if the user stops
    /// waiting.
    pub(super) fn begin(root: &Path, name: &str, progress: &dyn Progress) -> Result<Self> {
        let mut folder = root.join(name);
        let creating = |folder: &Path, e: &std::io::Error| {
            Error::io(format!("creating {}", folder.display()), e).or_hint("is the folder writable?")
        };
        let (parent, _) = parts(&folder);
        fs::create_dir_all(parent).map_err(|e| creating(parent, &e))?;
        let mut locks = Vec::new();
        let above = name.match_indices('/').map(|(at, _)| root.join(&name[..at]));
        for outer in above {
            locks.push(take(&outer, LockMode::Shared, progress)?);
        }
        // If the folder is a symbolic link, its target is replaced, not the link.
        if fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_symlink()) {
            folder = folder.canonicalize().map_err(|e| creating(&folder, &e))?;
        }
        locks.push(take(&folder, LockMode::Exclusive, progress)?);
        bring_back(&folder);
        disk::remove_left_over(&folder);
        let (parent, own) = parts(&folder);
        let staged = tempfile::Builder::new()
            .prefix(&staged_prefix(&own))
            .permissions(fs::Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(|e| creating(parent, &e))?
            .keep();
        Ok(Self { folder, staged, _locks: locks })
    }

    /// Returns the time at which another run finished an analysis of this name, if that was after
    /// `began`.
    pub(super) fn saved_meanwhile(&self, began: SystemTime) -> Option<SystemTime> {
        let last = self.folder.join(FINAL);
        let metadata = fs::metadata(&last).ok()?;
        let ours = saved().get(&last).is_some_and(|own| *own == id(&metadata));
        metadata.modified().ok().filter(|modified| *modified > began && !ours)
    }

    /// The hidden folder beside it, with the new files.
    pub(super) fn staged(&self) -> &Path {
        &self.staged
    }

    pub(super) fn add(&self, name: &str, data: &[u8]) -> Result<()> {
        let written = File::create_new(self.staged.join(name)).and_then(|mut file| file.write_all(data));
        written.map_err(|e| self.writing(name, &e))
    }

    fn writing(&self, name: &str, e: &std::io::Error) -> Error {
        Error::io(format!("writing {}", self.folder.join(name).display()), e).or_hint("is the disk full?")
    }

    /// Replaces the earlier files by the new ones.
    pub(super) fn finish(self) -> Result<()> {
        let names = || fs::read_dir(&self.staged).into_iter().flatten().flatten();
        // All files have been written before the first is flushed, since the first flush takes most
        // of the others with it.
        for entry in names() {
            let synced = File::open(entry.path()).and_then(|file| file.sync_all());
            synced.map_err(|e| self.writing(&entry.file_name().to_string_lossy(), &e))?;
        }
        if let Ok(metadata) = fs::metadata(&self.folder) {
            let _ = fs::set_permissions(&self.staged, metadata.permissions());
        }
        let mut linked = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            // This fails for folders, which are moved later, and for all files if the file system
            // has no hard links.
            let link = self.staged.join(entry.file_name());
            if !is_own(&entry.file_name().to_string_lossy()) && fs::hard_link(entry.path(), &link).is_ok() {
                linked.push(entry.file_name());
            }
        }
        disk::sync_folder(&self.staged);
        let left = self.change_places().map_err(|e| {
            Error::io(format!("replacing {}", self.folder.display()), &e).or_hint("is the folder above it writable?")
        })?;
        let (parent, _) = parts(&self.folder);
        disk::sync_folder(parent);
        if let Some(left) = left {
            linked.iter().for_each(|name| one_name(&left.join(name), &self.folder.join(name)));
            settle(&left, &self.folder);
        }
        let last = self.folder.join(FINAL);
        if let Ok(metadata) = fs::metadata(&last) {
            saved().insert(last, id(&metadata));
        }
        Ok(())
    }

    /// Exchanges the folders. Returns the present path of the earlier folder, if there was one.
    fn change_places(&self) -> std::io::Result<Option<PathBuf>> {
        let (staged, folder) = (&self.staged, &self.folder);
        if !fs::exists(folder)? {
            match fs::rename(staged, folder) {
                Ok(()) => return Ok(None),
                // Another program has begun to write there at this moment.
                Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => (),
                Err(e) => return Err(e),
            }
        }
        if !folder.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        match exchange(staged, folder) {
            Ok(()) => Ok(Some(staged.clone())),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {
                let (parent, name) = parts(folder);
                let aside = tempfile::Builder::new().prefix(&aside_prefix(&name)).tempdir_in(parent)?.keep();
                fs::rename(folder, &aside)?;
                if let Err(e) = fs::rename(staged, folder) {
                    fs::rename(&aside, folder)?;
                    return Err(e);
                }
                Ok(Some(aside))
            }
            Err(e) => Err(e),
        }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // The hidden folder no longer exists once it has replaced the other one.
        settle(&self.staged, &self.folder);
    }
}

/// Identifies one version of a file: device, inode, and the seconds and nanoseconds of its last
/// change.
type Version = (u64, u64, i64, i64);

/// The final files that this process has saved, each with the version that it had then.
fn saved() -> std::sync::MutexGuard<'static, HashMap<PathBuf, Version>> {
    static SAVED: LazyLock<Mutex<HashMap<PathBuf, Version>>> = LazyLock::new(Mutex::default);
    SAVED.lock().expect("no panic under this lock")
}

fn id(metadata: &Metadata) -> Version {
    (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

fn take(folder: &Path, hold: LockMode, progress: &dyn Progress) -> Result<Lock> {
    let begin = Instant::now();
    let mut told = false;
    Lock::take(&lock_of(folder), hold, || {
        if progress.interrupted() {
            return Err(Error::interrupted());
        }
        if begin.elapsed() > PATIENCE {
            let message =
                format!("saving {}: another run holds it since {} minutes", folder.display(), PATIENCE.as_secs() / 60);
            return Err(
                Error::new(crate::error::Kind::Timeout, message).hint("does it stand still? end it, and save again")
            );
        }
        if begin.elapsed() > TELL && !std::mem::replace(&mut told, true) {
            progress.event(Event::Warning(format!("another run is saving {}; waiting for it", folder.display())));
        }
        Ok(())
    })
}

fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidInput);
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both are strings that end with a zero byte and outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Files had a name in both folders during the exchange. A file that was removed or renamed in the
/// earlier folder just before it is removed from the new one, too. Changes in the new folder since
/// then are left as they are.
fn one_name(earlier: &Path, new: &Path) {
    let id = |path: &Path| fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    match (id(earlier), id(new)) {
        (Ok(one), Ok(other)) if one != other => merge(earlier, new),
        (Ok(_), _) => drop(fs::remove_file(earlier)),
        (Err(_), Ok(_)) => drop(fs::remove_file(new)),
        (Err(_), Err(_)) => (),
    }
}

/// Moves the files that belong to no analysis from the folder `from` to `to`, and removes the rest.
fn settle(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        match is_own(&entry.file_name().to_string_lossy()) {
            true => drop(fs::remove_file(entry.path())),
            false => merge(&entry.path(), &to.join(entry.file_name())),
        }
    }
    let _ = fs::remove_dir(from);
}

/// Moves one file or folder. If both exist, the newer file is kept.
fn merge(from: &Path, to: &Path) {
    let Ok(ours) = fs::symlink_metadata(from) else { return };
    let Ok(theirs) = fs::symlink_metadata(to) else {
        let _ = to.parent().map(fs::create_dir_all);
        // Another program may have created a folder of this name at this moment.
        if fs::rename(from, to).is_err() && fs::symlink_metadata(to).is_ok() {
            merge(from, to);
        }
        return;
    };
    let same = (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino());
    let newer = ours.modified().ok() > theirs.modified().ok();
    let _ = match (ours.is_dir(), theirs.is_dir()) {
        (true, true) => {
            let inner = fs::read_dir(from).into_iter().flatten().flatten();
            inner.for_each(|entry| merge(&entry.path(), &to.join(entry.file_name())));
            fs::remove_dir(from)
        }
        (false, false) if !same && newer => fs::rename(from, to),
        (false, false) => fs::remove_file(from),
        // A file and a folder of the same name stay apart, so that neither is lost.
        _ => Ok(()),
    };
}

/// The folders that killed runs have left beside this one while they saved it.
fn left(folder: &Path) -> Vec<PathBuf> {
    let (parent, name) = parts(folder);
    let prefixes = [aside_prefix(&name), staged_prefix(&name)];
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let is_left = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        prefixes.iter().any(|prefix| name.starts_with(prefix)) && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    let mut left: Vec<PathBuf> = entries.filter(is_left).map(|entry| entry.path()).collect();
    // Earlier folders come first, and one of them may have to be restored.
    left.sort();
    left
}

/// Undoes a replacement that was interrupted. The caller holds the lock.
fn bring_back(folder: &Path) {
    let (_, name) = parts(folder);
    for left in left(folder) {
        let earlier = parts(&left).1.starts_with(&aside_prefix(&name));
        match earlier && !folder.exists() {
            true => drop(fs::rename(&left, folder)),
            false => settle(&left, folder),
        }
    }
}

/// Does the same for a reader, if there is something to undo and no run is saving.
pub(super) fn recover(folder: &Path) {
    if !left(folder).is_empty()
        && let Ok(Some(_lock)) = Lock::attempt(&lock_of(folder), LockMode::Exclusive)
    {
        bring_back(folder);
    }
}
