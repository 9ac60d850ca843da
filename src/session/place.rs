//! The folder of a worker on its machine, with socket, lock and log. It belongs to one user and is
//! closed to all others, whatever was left there before.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::home::own_user;

const LOG: &str = "worker.log";
const LOCK: &str = "worker.lock";
/// The file with the id of the process that holds the lock.
const PROCESS: &str = "pid";
/// Number of bytes at the end of the log that are searched for an error.
const END_OF_LOG: u64 = 4096;
/// The lock file contains one line.
const LONGEST_NOTE: u64 = 1000;

pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    /// Opens the folder, which is created if it does not exist. Rejected if others could have
    /// written to it.
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let making = |e: std::io::Error| Error::io(format!("creating {}", folder.display()), &e);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(making)?;
        Self::find(folder)
    }

    /// The same if another process creates the folder.
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let looking = |e: std::io::Error| Error::io(format!("looking at {}", folder.display()), &e);
        // The opened folder is checked, because its name may lead elsewhere a moment later.
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder);
        let opened = opened.map_err(|e| match e.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => Error::of(Failure::FolderIsLink(folder.to_path_buf())),
            _ => looking(e),
        })?;
        let found = opened.metadata().map_err(looking)?;
        belongs_to_us(folder, &found)?;
        if found.mode() & 0o077 != 0 {
            opened.set_permissions(fs::Permissions::from_mode(0o700)).map_err(looking)?;
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let above_mode = fs::metadata(above).map_err(looking)?.mode();
        if above_mode & 0o002 != 0 && above_mode & 0o1000 == 0 {
            let (folder, above) = (folder.to_path_buf(), above.to_path_buf());
            return Err(Error::of(Failure::FolderOpen { folder, above }));
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// The socket for clients.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("worker.sock")
    }

    /// A file of ours in the folder, created if it does not exist; never through a link, nor
    /// another user's.
    fn file(&self, name: &str, options: &mut OpenOptions) -> Result<File> {
        let path = self.folder.join(name);
        let opening = |e: std::io::Error| Error::io(format!("opening {}", path.display()), &e);
        // Non-blocking, because the file may be a pipe.
        let options = options.create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&path).map_err(opening)?;
        let found = file.metadata().map_err(opening)?;
        belongs_to_us(&path, &found)?;
        match found.is_file() {
            true => Ok(file),
            false => Err(Error::of(Failure::NoFile(path))),
        }
    }

    /// The worker's log, to be appended to.
    pub(super) fn log(&self) -> Result<File> {
        self.file(LOG, OpenOptions::new().append(true))
    }

    /// The last line of the log with a message.
    pub(super) fn last_word(&self) -> Option<String> {
        let mut log = self.file(LOG, OpenOptions::new().read(true).append(true)).ok()?;
        let length = log.metadata().ok()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG))).ok()?;
        let mut end = Vec::new();
        log.take(END_OF_LOG).read_to_end(&mut end).ok()?;
        let end = String::from_utf8_lossy(&end);
        let told = end.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with("  hint: "));
        told.map(|line| line.trim_start_matches("error: ").to_string())
    }

    /// Takes the lock while one worker serves the folder, including its end.
    pub(super) fn lock(&self) -> Result<Lock> {
        let mut file = self.file(LOCK, OpenOptions::new().read(true).write(true))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(fs::TryLockError::WouldBlock) => {
                let mut note = String::new();
                let _ = (&mut file).take(LONGEST_NOTE).read_to_string(&mut note);
                return Err(match note.trim() {
                    "" => Error::of(Failure::AlreadyServed(self.folder.clone())),
                    note => Error::of(Failure::GivesBack(note.to_string())),
                });
            }
            Err(fs::TryLockError::Error(e)) => {
                return Err(Error::io(format!("locking {}", self.folder.display()), &e));
            }
        }
        let lock = Lock(file);
        lock.note("");
        Ok(lock)
    }

    /// Listens. The folder is closed to others, so that nobody can connect before the socket's own
    /// mode is set.
    pub(super) fn listen(&self) -> Result<UnixListener> {
        let path = self.socket();
        let _ = fs::remove_file(&path);
        let listening = |e: std::io::Error| {
            Error::io(format!("listening on {}", path.display()), &e)
                .or_hint("the path of a socket has at most 107 bytes")
        };
        let listener = UnixListener::bind(&path).map_err(listening)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(listening)?;
        Ok(listener)
    }

    /// Connects to the worker or guardian that serves the folder, if it belongs to the same user.
    pub(super) fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.socket()).ok().filter(is_ours)
    }

    /// Writes a new file atomically.
    pub(super) fn leave(&self, name: &str, content: &str) -> std::io::Result<()> {
        let draft = self.folder.join(format!("{name}.{:08x}", rand::random::<u32>()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&draft, self.folder.join(name))
    }

    /// Writes the id of the process that looks after the machine, so that it can be ended without a
    /// connection.
    pub(super) fn name_process(&self) {
        // Without this file it can still be ended through the socket.
        let _ = self.leave(PROCESS, &format!("{}\n", std::process::id()));
    }

    /// Prevents further connections.
    pub(super) fn close(&self) {
        let _ = fs::remove_file(self.socket());
    }

    /// Removes the folder and our files in it. Files of others stay, and the folder with them.
    pub(super) fn remove(&self) {
        self.close();
        for name in [LOG, LOCK, PROCESS] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

fn belongs_to_us(path: &Path, found: &Metadata) -> Result<()> {
    if found.uid() == own_user() {
        return Ok(());
    }
    Err(Error::of(Failure::OtherUser { path: path.to_path_buf(), uid: found.uid() }))
}

/// True if the process at the other end has the same user, or is root's. If the system does not
/// report it, the folder is the only protection.
pub(super) fn is_ours(stream: &UnixStream) -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: a valid descriptor, and a pointer to `length` bytes.
        let told = unsafe {
            let to = (&raw mut who).cast();
            libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut length)
        };
        told == 0 && (who.uid == own_user() || who.uid == 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream.as_raw_fd();
        true
    }
}

/// The lock of a place. A process that has its file, even by inheritance, holds the lock.
pub struct Lock(pub File);

impl Lock {
    /// Sets the message for processes that find the place locked.
    pub fn note(&self, text: &str) {
        let mut file = &self.0;
        // The text is only for people, so that a full disk is ignored.
        let _ =
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(text.as_bytes()));
    }

    /// Updates the time of the file, which shows that the worker is looked after, without using
    /// disk space.
    pub fn show_life(&self) {
        let _ = self.0.set_modified(SystemTime::now());
    }
}
