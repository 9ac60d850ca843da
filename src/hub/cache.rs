//! The cache folder of one repository, laid out as the Python package huggingface_hub does: `blobs/` by hash, `snapshots/`
//! with relative links into them, `refs/` with the commits of branches, locks beside the repositories.
//!
//! What is found there may have been written by anybody's program, and torn by a loss of power: a commit and a hash are
//! believed by their form, a link by where it leads, and a small file by its hash each time it is used. A large file is
//! believed by its hash when it is linked into a snapshot, and not read again for that later. A blob that is not named by a
//! hash comes from a mirror, fetched by the Python package: it is what this user has, as a file that is no link.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment;
use super::hash::Hash;
use super::names::is_commit;
use super::source::SMALL_FILE;
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::outside;
use crate::progress::{Event, Progress};

/// Between two looks at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// What a killed download has left, or a killed process on the way to a link, is given up after so long a time.
const STALE: Duration = Duration::from_secs(14 * 24 * 3600);
/// The ending of what has arrived of a blob so far, and of a link on its way to its name.
const INCOMPLETE: &str = ".incomplete";
const LINK: &str = ".link";

/// A repository in the cache.
pub struct Cache {
    /// `…/hub/models--owner--name`
    repository: PathBuf,
}

/// One commit of a repository in the cache.
pub struct Snapshot {
    repository: PathBuf,
    pub commit: String,
}

/// Why a file of a commit is not used although something stands in its place.
enum Flaw {
    /// The link leads to nothing, or out of the blobs of its repository.
    Astray,
    /// The content has not the hash that the blob is named by.
    Changed(Hash),
    /// It does not begin like what its name says.
    Implausible,
}

/// Held until dropped.
pub struct Lock(#[allow(dead_code)] File);

impl Cache {
    /// Of the model `owner/name`, an id of letters that are checked.
    ///
    /// # Errors
    /// `io` where this user has no folder for caches.
    pub fn of(id: &str) -> Result<Self> {
        let cache = environment::hub_cache().ok_or_else(|| {
            Error::new(Kind::Io, "there is no folder for the cache of models").hint("set HF_HOME or HOME to a folder")
        })?;
        Ok(Self { repository: cache.join(hf_hub::Repo::model(id.to_string()).folder_name()) })
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.repository.join("refs").join(revision)
    }

    /// The commit that a branch or tag was at when somebody last asked.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let mut text = String::new();
        outside::open(&self.reference(revision)).ok()?.take(64).read_to_string(&mut text).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Notes the commit of a branch or tag; `revision` is one that `names::is_revision` has passed.
    pub fn note(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        disk::write(&self.reference(revision), commit.as_bytes())
    }

    pub fn snapshot(&self, commit: &str) -> Snapshot {
        Snapshot { repository: self.repository.clone(), commit: commit.to_string() }
    }

    /// Removes what killed processes have left and nobody has gone on with for two weeks.
    pub fn sweep(&self) {
        let old = |path: &Path| {
            let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > STALE))
        };
        let snapshots = std::fs::read_dir(self.repository.join("snapshots")).into_iter().flatten().flatten();
        for folder in snapshots.map(|entry| entry.path()).chain([self.repository.join("blobs")]) {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if (name.ends_with(INCOMPLETE) || name.ends_with(LINK)) && old(&entry.path()) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

impl Snapshot {
    /// `…/models--owner--name/snapshots/<commit>`
    pub fn folder(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.commit)
    }

    /// Where a file of this commit is, or will be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn blob(&self, hash: &Hash) -> PathBuf {
        self.repository.join("blobs").join(hash.digits())
    }

    /// What has arrived of a blob so far, from its first byte on.
    pub fn incomplete(&self, hash: &Hash) -> PathBuf {
        self.repository.join("blobs").join(format!("{}{INCOMPLETE}", hash.digits()))
    }

    /// The name of the blob that a file is a link to; None where there is no such link, or it leads elsewhere.
    fn blob_of(&self, name: &str) -> Option<String> {
        let file = self.file(name);
        let target = std::fs::read_link(&file).ok()?;
        let folder = file.parent()?.join(target.parent()?).canonicalize().ok()?;
        let inside = folder == self.repository.join("blobs").canonicalize().ok()?;
        target.file_name()?.to_str().filter(|_| inside).map(str::to_string)
    }

    /// The hash of the blob that a file is a link to; None where there is no such link, or its name is no hash.
    pub fn linked(&self, name: &str) -> Option<Hash> {
        Hash::parse(&self.blob_of(name)?)
    }

    /// Whether a file is there, is what it must be, and begins like what its name says.
    pub fn has(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.file(name)).is_ok() && self.flaw(name).is_none()
    }

    /// What is wrong with a file that is there.
    fn flaw(&self, name: &str) -> Option<Flaw> {
        let file = self.file(name);
        if file.is_symlink() {
            match self.blob_of(name) {
                Some(blob) if file.is_file() => match Hash::parse(&blob) {
                    Some(hash) if !is_believable(&file, &hash) => return Some(Flaw::Changed(hash)),
                    _ => (),
                },
                _ => return Some(Flaw::Astray),
            }
        }
        // A file that is no link comes from a file system without links.
        (!is_plausible(&file)).then_some(Flaw::Implausible)
    }

    /// The error of a file that is there and cannot be used; None where it can, or is not there.
    pub fn damaged(&self, name: &str) -> Option<Error> {
        let file = self.file(name);
        std::fs::symlink_metadata(&file).ok()?;
        let problem = match self.flaw(name)? {
            Flaw::Astray => {
                let message =
                    format!("{name} is not in the cache: the link in its place leads to no blob of this model");
                return Some(
                    Error::not_found(message).hint(format!("remove {}, and have it fetched again", file.display())),
                );
            }
            Flaw::Changed(hash) => format!("its content has not the {} {} of its blob", hash.kind(), hash.digits()),
            Flaw::Implausible => "it does not begin like such a file".to_string(),
        };
        let blob = file.canonicalize().unwrap_or(file);
        Some(Error::corrupt(format!("{name} in the cache is damaged: {problem}")).hint(format!(
            "remove {}, and have it fetched again; what was changed on purpose can be loaded as the folder {}",
            blob.display(),
            self.folder().display()
        )))
    }

    /// Where the Python package notes that a commit has no file of this name.
    fn absence(&self, name: &str) -> PathBuf {
        self.repository.join(".no_exist").join(&self.commit).join(name)
    }

    /// Whether somebody has noted that this commit has no such file.
    pub fn lacks(&self, name: &str) -> bool {
        self.absence(name).is_file()
    }

    /// Notes that this commit has no such file. Where that cannot be written, it will be asked again.
    pub fn note_absence(&self, name: &str) {
        let _ = disk::write(&self.absence(name), b"");
    }

    /// Makes `name` a link to the blob, in one step that a loss of power does not undo by halves.
    pub fn link(&self, name: &str, hash: &Hash) -> Result<()> {
        let file = self.file(name);
        let linking = |e: std::io::Error| Error::io(format!("writing {}", file.display()), &e);
        let up = "../".repeat(2 + name.matches('/').count());
        let fresh = self.file(&format!("{name}.{}{LINK}", std::process::id()));
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(linking)?;
        let _ = std::fs::remove_file(&fresh);
        match std::os::unix::fs::symlink(format!("{up}blobs/{}", hash.digits()), &fresh) {
            Ok(()) => std::fs::rename(&fresh, &file).map_err(linking)?,
            // A file system without links: the blob itself moves, as in the Python cache.
            Err(_) => std::fs::rename(self.blob(hash), &file).map_err(linking)?,
        }
        disk::sync_folder(folder);
        Ok(())
    }

    /// Waits until no other process downloads this blob. Python's lock is the same one.
    pub fn lock(&self, hash: &Hash, name: &str, progress: &dyn Progress) -> Result<Lock> {
        let missing = || Error::not_found(format!("{}: not a cache folder", self.repository.display()));
        let (Some(cache), Some(repository)) = (self.repository.parent(), self.repository.file_name()) else {
            return Err(missing());
        };
        let folder = cache.join(".locks").join(repository);
        let path = folder.join(format!("{}.lock", hash.digits()));
        let locking = |e: std::io::Error| Error::io(format!("locking {}", path.display()), &e);
        std::fs::create_dir_all(&folder).map_err(locking)?;
        let options = File::options().create(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = options.map_err(locking)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(e)) if e.kind() != std::io::ErrorKind::Interrupted => return Err(locking(e)),
                Err(_) => (),
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
    }
}

/// Whether a blob is there and, where that costs nothing, has the content that its name promises.
fn is_believable(path: &Path, hash: &Hash) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    let small = metadata.len() <= SMALL_FILE;
    metadata.is_file() && (!small || hash.is_of_file(path, |_| Ok::<_, ()>(())).unwrap_or(false))
}

/// Whether a file exists and begins like what its name says.
pub fn is_plausible(path: &Path) -> bool {
    let mut begin = [0u8; 9];
    let Ok(read) = outside::open(path).and_then(|mut file| file.read(&mut begin)) else { return false };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => begin.trim_ascii_start().starts_with(b"{"),
        // The length of the header, then the header.
        Some("safetensors") => read == 9 && begin[8] == b'{',
        _ => true,
    }
}
