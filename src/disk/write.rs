//! Atomic writes: a file is written under a temporary name, flushed, and then renamed. Every file
//! that others look for by its name is written here.
//!
//! A temporary file is hidden, has the computer's name in its own, and is locked while it is
//! written. A later writer in the same folder on the same computer can therefore recognise the
//! files that killed runs left behind, and removes them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::lock::{is_same_file, try_lock};
use crate::error::{Error, Result};

/// A folder may be replaced as a whole while a file is written in it, and has another name for a
/// moment. An operation that fails because of that is repeated this often.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The beginning of the names of temporary files and folders of this computer. A random part
/// follows. `before` says which part of the program they belong to.
pub fn temporary_prefix(before: &str) -> String {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let mut name = [0u8; 64];
        // SAFETY: the pointer and the length are those of the array.
        unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
        let letters = name.iter().take_while(|byte| **byte != 0).filter(|byte| byte.is_ascii_alphanumeric());
        letters.take(24).map(|byte| *byte as char).collect()
    });
    format!("{before}-{}-", *HOST)
}

/// Writes `data` to `path`, creating its folder.
pub fn write(path: &Path, data: &[u8]) -> Result<()> {
    let file = create(path)?;
    let writing = || format!("writing {}", path.display());
    file.as_file().write_all(data).map_err(|e| Error::io(writing(), &e).or_hint("is the disk full?"))?;
    publish(file, path)
}

fn parent_folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `data` to `path` with access for this user only (mode 600), creating its folder. An
/// existing file stays as it is: if two runs write at the same time, both find the first one's
/// file.
pub fn write_secret_once(path: &Path, data: &[u8]) -> Result<()> {
    let file = create_with(path, 0o600)?;
    let writing = |e: &std::io::Error| Error::io(format!("writing {}", path.display()), e).or_hint("is the disk full?");
    file.as_file().write_all(data).and_then(|()| file.as_file().sync_all()).map_err(|e| writing(&e))?;
    match file.persist_noclobber(path) {
        Err(failed) if failed.error.kind() != ErrorKind::AlreadyExists => return Err(writing(&failed.error)),
        _ => sync_folder(parent_folder(path)),
    }
    Ok(())
}

/// Creates a hidden file in the folder of `path`. It is deleted unless it is published.
pub fn create(path: &Path) -> Result<NamedTempFile> {
    create_with(path, 0o666)
}

fn create_with(path: &Path, mode: u32) -> Result<NamedTempFile> {
    static CLEANED: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let folder = parent_folder(path);
    retry_while_moved(folder, || std::fs::create_dir_all(folder))
        .map_err(|e| Error::io(format!("creating {}", folder.display()), &e))?;
    // Once per folder is enough, because this process removes its own temporary files.
    if CLEANED.lock().expect("no panic under this lock").insert(folder.to_path_buf()) {
        remove_left_over(folder);
    }
    let begin = || {
        std::fs::create_dir_all(folder)?;
        tempfile::Builder::new()
            .prefix(&temporary_prefix(".partial"))
            .permissions(std::fs::Permissions::from_mode(mode))
            .tempfile_in(folder)
    };
    loop {
        let file = retry_while_moved(folder, begin).map_err(|e| {
            Error::io(format!("writing in {}", folder.display()), &e).or_hint("is the folder writable?")
        })?;
        if try_lock(file.as_file()) && keeps_its_name(&file) {
            return Ok(file);
        }
    }
}

/// Repeats an operation that fails because its folder has another name for a moment. It is not
/// repeated if something other than a folder is in the way.
fn retry_while_moved<T>(folder: &Path, mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let blocked = || folder.ancestors().any(|above| above.symlink_metadata().is_ok() && !above.is_dir());
    for _ in 0..ATTEMPTS {
        match attempt() {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) && !blocked() => (),
            other => return other,
        }
        std::thread::sleep(PAUSE);
    }
    attempt()
}

/// True if a new file, which is locked by now, still has its name. Another process may have removed
/// it as left over before it was locked; then it has no name at all. If it has another name, its
/// folder is being replaced, and it is checked again.
fn keeps_its_name(file: &NamedTempFile) -> bool {
    for _ in 0..ATTEMPTS {
        if is_same_file(file.as_file(), file.path()) {
            return true;
        }
        if file.as_file().metadata().is_ok_and(|metadata| metadata.nlink() == 0) {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// Removes the temporary files in a folder that earlier runs on this computer left behind and that
/// nobody is writing.
pub fn remove_left_over(folder: &Path) {
    let prefix = temporary_prefix(".partial");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            let path = entry.path();
            let file = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
            // On a file system without locks nobody can tell whether a file is being written.
            if file.is_ok_and(|file| file.try_lock().is_ok() && is_same_file(&file, &path)) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }
}

/// Flushes a finished file and renames it to `path`.
pub fn publish(file: NamedTempFile, path: &Path) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    file.as_file().sync_all().map_err(|e| Error::io(writing(), &e).or_hint("is the disk full?"))?;
    let mut file = file;
    for attempt in 0.. {
        match file.persist(path) {
            Ok(_) => break,
            Err(failed) if failed.error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => file = failed.file,
            Err(failed) => return Err(Error::io(writing(), &failed.error)),
        }
        std::thread::sleep(PAUSE);
    }
    sync_folder(parent_folder(path));
    Ok(())
}

/// Renames the finished file `from` to `to` in the same file system. Its contents are flushed to
/// the disk before, its new name after.
///
/// # Errors
/// The error of the operating system. `to` is unchanged then.
pub fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    File::options().read(true).open(from)?.sync_all()?;
    std::fs::rename(from, to)?;
    sync_folder(parent_folder(to));
    Ok(())
}

/// Flushes the names in a folder to the disk, so that they survive a power failure. Errors are
/// ignored, because some file systems cannot do it.
pub fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_nobody_writes_is_swept_and_what_somebody_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let begun = create(&path).unwrap();
        let left = folder.path().join(format!("{}AbCdEf", temporary_prefix(".partial")));
        std::fs::write(&left, "cut off").unwrap();
        let other = folder.path().join(".partial-elsewhere-AbCdEf");
        std::fs::write(&other, "of another computer").unwrap();
        remove_left_over(folder.path());
        assert!(begun.path().exists() && other.exists() && !left.exists());
        publish(begun, &path).unwrap();
        std::fs::remove_file(other).unwrap();
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn of_many_who_write_a_secret_one_is_believed_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer: u8| {
                    let path = &path;
                    scope.spawn(move || {
                        write_secret_once(path, &vec![writer; 1 << 16]).unwrap();
                        std::fs::read(path).unwrap()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(read.iter().all(|text| text.len() == 1 << 16 && *text == read[0]));
        assert_eq!(names(folder.path()), ["key"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_whose_folder_is_away_for_a_moment_gets_its_name() {
        let root = tempfile::tempdir().unwrap();
        let (folder, away) = (root.path().join("a"), root.path().join("b"));
        let begun = create(&folder.join("x")).unwrap();
        std::fs::rename(&folder, &away).unwrap();
        std::thread::scope(|scope| {
            let publishing = scope.spawn(|| publish(begun, &folder.join("x")));
            std::thread::sleep(Duration::from_millis(50));
            std::fs::rename(&away, &folder).unwrap();
            publishing.join().unwrap().unwrap();
        });
        assert_eq!(names(&folder), ["x"]);
    }
}
