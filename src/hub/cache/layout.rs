//! The cache folder of one repository, in the layout of the Python package huggingface_hub:
//! `blobs/` by hash, `snapshots/` with relative links to them, `refs/` with the commits of
//! branches, and locks next to the repositories.
//!
//! Its contents may have been written by any program, and damaged by a power failure. A commit and
//! a hash are accepted by their form, a link by its target, and a small file by its hash at every
//! use. A large file is verified by its hash when it is linked into a snapshot, and not again. A
//! blob whose name is not a hash was fetched from a mirror by the Python package; it is accepted
//! like a file that is not a link.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk;
use crate::error::{Error, Result};
use crate::hub::environment;
use crate::hub::failure::Failure;
use crate::hub::hash::Hash;
use crate::hub::names::is_commit;
use crate::hub::weights::source::SMALL_FILE;
use crate::outside;
use crate::progress::{Event, Progress};

/// Time between two attempts to take a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Age at which the remains of a killed download, or of a killed process that was making a link,
/// are removed.
const STALE: Duration = Duration::from_secs(14 * 24 * 3600);
/// The suffix of partly downloaded blobs, and of links before they are renamed.
const INCOMPLETE: &str = ".incomplete";
const LINK: &str = ".link";

/// A repository in the cache.
pub(crate) struct Cache {
    /// `…/hub/models--owner--name`
    repository: PathBuf,
}

/// One commit of a repository in the cache.
pub(crate) struct Snapshot {
    repository: PathBuf,
    pub commit: String,
}

/// The reason why an existing file of a commit is not used.
enum Flaw {
    /// The link has no target, or a target outside of the blobs of its repository.
    Astray,
    /// The content does not have the hash in the blob's name.
    Changed(Hash),
    /// Its first bytes contradict the format in its name.
    Implausible,
}

/// A lock that is held until it is dropped.
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Cache {
    /// The cache of the model `owner/name`, an id whose characters have been checked.
    ///
    /// # Errors
    /// `io` if this user has no folder for caches.
    pub(crate) fn of(id: &str) -> Result<Self> {
        let cache = environment::hub_cache().ok_or_else(|| Error::of(Failure::NoCacheFolder))?;
        Ok(Self { repository: cache.join(hf_hub::Repo::model(id.to_string()).folder_name()) })
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.repository.join("refs").join(revision)
    }

    /// The commit of a branch or tag at the time of the last query.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        let mut text = String::new();
        outside::open(&self.reference(revision)).ok()?.take(64).read_to_string(&mut text).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Stores the commit of a branch or tag. `revision` has passed `names::is_revision`.
    pub(crate) fn note(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        disk::write(&self.reference(revision), commit.as_bytes())
    }

    pub(crate) fn snapshot(&self, commit: &str) -> Snapshot {
        Snapshot { repository: self.repository.clone(), commit: commit.to_string() }
    }

    /// Removes the remains of killed processes that nobody has continued for two weeks.
    pub(crate) fn sweep(&self) {
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
    pub(crate) fn folder(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.commit)
    }

    /// The path of a file of this commit, which may not exist yet.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn blob(&self, hash: &Hash) -> PathBuf {
        self.repository.join("blobs").join(hash.digits())
    }

    /// The path of a partly downloaded blob, which contains its first bytes.
    pub(crate) fn incomplete(&self, hash: &Hash) -> PathBuf {
        self.repository.join("blobs").join(format!("{}{INCOMPLETE}", hash.digits()))
    }

    /// The name of the blob that a file links to. None if there is no such link, or if it leads
    /// elsewhere.
    fn blob_of(&self, name: &str) -> Option<String> {
        let file = self.file(name);
        let target = std::fs::read_link(&file).ok()?;
        let folder = file.parent()?.join(target.parent()?).canonicalize().ok()?;
        let inside = folder == self.repository.join("blobs").canonicalize().ok()?;
        target.file_name()?.to_str().filter(|_| inside).map(str::to_string)
    }

    /// The hash of the blob that a file links to. None if there is no such link, or if its name is
    /// not a hash.
    pub(crate) fn linked(&self, name: &str) -> Option<Hash> {
        Hash::parse(&self.blob_of(name)?)
    }

    /// True if a file exists, has the right content, and begins as its name says.
    pub(crate) fn has(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.file(name)).is_ok() && self.flaw(name).is_none()
    }

    /// The flaw of an existing file.
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
        // On a file system without links, a file is not a link.
        (!is_plausible(&file)).then_some(Flaw::Implausible)
    }

    /// The error of an existing file that cannot be used; None if it can, or does not exist.
    pub(crate) fn damaged(&self, name: &str) -> Option<Error> {
        let file = self.file(name);
        std::fs::symlink_metadata(&file).ok()?;
        let problem = match self.flaw(name)? {
            Flaw::Astray => {
                return Some(Error::of(Failure::AstrayInCache { name: name.to_string(), file }));
            }
            Flaw::Changed(hash) => format!("its content has not the {} {} of its blob", hash.kind(), hash.digits()),
            Flaw::Implausible => "it does not begin like such a file".to_string(),
        };
        let blob = file.canonicalize().unwrap_or(file);
        let (name, folder) = (name.to_string(), self.folder().to_path_buf());
        Some(Error::of(Failure::DamagedInCache { name, problem, blob, folder }))
    }

    /// The file by which the Python package records that a commit has no file of this name.
    fn absence(&self, name: &str) -> PathBuf {
        self.repository.join(".no_exist").join(&self.commit).join(name)
    }

    /// True if it is recorded that this commit has no such file.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.absence(name).is_file()
    }

    /// Records that this commit has no such file. If it cannot be written, the hub is asked again
    /// next time.
    pub(crate) fn note_absence(&self, name: &str) {
        let _ = disk::write(&self.absence(name), b"");
    }

    /// Makes `name` a link to the blob, atomically even if the power fails.
    pub(crate) fn link(&self, name: &str, hash: &Hash) -> Result<()> {
        let file = self.file(name);
        let linking = |e: std::io::Error| Error::io(format!("writing {}", file.display()), &e);
        let up = "../".repeat(2 + name.matches('/').count());
        let fresh = self.file(&format!("{name}.{}{LINK}", std::process::id()));
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(linking)?;
        let _ = std::fs::remove_file(&fresh);
        match std::os::unix::fs::symlink(format!("{up}blobs/{}", hash.digits()), &fresh) {
            Ok(()) => std::fs::rename(&fresh, &file).map_err(linking)?,
            // On a file system without links the blob itself is moved, as in the Python cache.
            Err(_) => std::fs::rename(self.blob(hash), &file).map_err(linking)?,
        }
        disk::sync_folder(folder);
        Ok(())
    }

    /// Waits until no other process downloads this blob. The Python package uses the same lock.
    pub(crate) fn lock(&self, hash: &Hash, name: &str, progress: &dyn Progress) -> Result<Lock> {
        let missing = || Error::of(Failure::NotInCache(self.repository.clone()));
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

/// True if a blob exists and, for small ones, has the content that its name promises.
fn is_believable(path: &Path, hash: &Hash) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    let small = metadata.len() <= SMALL_FILE;
    metadata.is_file() && (!small || hash.is_of_file(path, |_| Ok::<_, ()>(())).unwrap_or(false))
}

/// True if a file exists and begins as its name says.
pub(crate) fn is_plausible(path: &Path) -> bool {
    let mut begin = [0u8; 9];
    let Ok(read) = outside::open(path).and_then(|mut file| file.read(&mut begin)) else { return false };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => begin.trim_ascii_start().starts_with(b"{"),
        // The length of the header, then the header.
        Some("safetensors") => read == 9 && begin[8] == b'{',
        _ => true,
    }
}
