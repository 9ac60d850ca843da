//! A model of the hub in the Hugging Face cache: which files it needs, which are there, and those that are missing fetched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::cache::{Cache, Snapshot};
use super::download::{Tally, download, fits};
use super::environment;
use super::weight_formats;
use super::http::{self, Http, Patience};
use super::names::is_commit;
use super::refusal::{self, Refusal};
use super::resolve::{Address, RemoteFile, check_revision};
use super::shards::{self, INDEX, SINGLE};
use super::source::{ByteSource, SMALL_FILE, too_large};
use super::streamed::{Streamed, without_config};
use crate::error::{Error, Kind, Result};
use crate::outside;
use crate::progress::{Event, Progress};

/// Files that are asked for at the same time.
const QUESTIONS: usize = 32;
/// Larger than any Git LFS pointer.
const POINTER_BYTES: u64 = 4096;
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// Bytes of weights from which on their headers are read before they are downloaded: what is smaller has come as quickly.
const LOOKED_AT_FIRST: u64 = 64 << 20;

/// The folder of a snapshot and its commit.
pub struct Located {
    pub folder: PathBuf,
    pub revision: String,
    /// What the user should know of the choice of files.
    pub note: Option<String>,
}

/// All files of a model in the cache, downloaded where they are missing. Before much is downloaded, `check` looks at the files
/// where they are.
///
/// # Errors
/// `not_found` where the model, the revision or a file that is needed does not exist; `corrupt` where what arrives is not what
/// the hub announces; `unsupported` where the weights are in another format; `io` where the hub does not answer, and the model is
/// not in the cache; and those of `check`.
pub fn locate(
    address: &Arc<Address>,
    revision: Option<&str>,
    progress: &dyn Progress,
    check: &dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
) -> Result<Located> {
    let revision = revision.unwrap_or("main");
    check_revision(address, revision)?;
    let cache = Cache::of(&address.id)?;
    let repository = Repository { address, progress, check, snapshot: commit(address, &cache, revision, progress)? };
    let snapshot = &repository.snapshot;
    // The other files are those of the same commit, whatever happens to a branch meanwhile.
    let (names, note) = repository.weights()?;
    let missing = names.into_iter().map(|name| (name, true)).chain([(TOKENIZER.to_string(), false)]);
    let missing: Vec<_> = missing.filter(|(name, _)| !snapshot.has(name)).collect();
    if !missing.is_empty() && !environment::offline() {
        cache.sweep();
    }
    repository.fetch(&missing)?;
    Ok(Located { folder: snapshot.folder(), revision: snapshot.commit.clone(), note })
}

/// The bytes of a small file of this computer.
pub fn small(path: &Path) -> Result<Vec<u8>> {
    outside::read(path, SMALL_FILE)
        .map(outside::without_bom)
        .map_err(|e| Error::io(format!("reading {}", path.display()), &e).hint("is the folder that of a model?"))
}

/// The commit that a revision is, with its configuration in the cache. A commit never moves: what is there is not asked for.
/// A branch is asked for, and is as it was last known where the hub does not answer.
fn commit(address: &Arc<Address>, cache: &Cache, revision: &str, progress: &dyn Progress) -> Result<Snapshot> {
    let known = if is_commit(revision) { Some(revision.to_string()) } else { cache.commit(revision) };
    let cached = known.map(|commit| cache.snapshot(&commit)).filter(|snapshot| snapshot.has(CONFIG));
    let cached = match cached {
        Some(snapshot) if is_commit(revision) || environment::offline() => return Ok(snapshot),
        None if environment::offline() => return Err(refusal::error(&address.doing(CONFIG), Refusal::Offline)),
        cached => cached,
    };
    let http = Arc::new(Http::new()?);
    let patience = if cached.is_some() { Patience::brief } else { Patience::default };
    let file = match ask_all(&http, address, revision, [CONFIG].into_iter(), patience)?.remove(0) {
        Err(error) if error.kind == Kind::Io => return cached.ok_or(error),
        file => file.map_err(|error| without_config(&http, address, revision, error))?,
    };
    let snapshot = cache.snapshot(&file.commit);
    if !snapshot.has(CONFIG) || snapshot.linked(CONFIG).is_some_and(|hash| hash != file.hash) {
        fetched(&http, &file, &snapshot, &mut Tally::new(progress))?;
    }
    if !is_commit(revision) {
        cache.note(revision, &file.commit)?;
    }
    Ok(snapshot)
}

/// Downloads a file, which then begins like what its name says.
fn fetched(http: &Arc<Http>, file: &Arc<RemoteFile>, snapshot: &Snapshot, tally: &mut Tally) -> Result<()> {
    if file.bytes > SMALL_FILE && file.name.ends_with(".json") {
        return Err(too_large(&file.doing(), file.bytes));
    }
    download(http, file, snapshot, tally)?;
    // A page of apologies can have the size and the hash that are announced.
    if snapshot.has(&file.name) {
        return Ok(());
    }
    let begin = if file.bytes < POINTER_BYTES {
        outside::read(&snapshot.file(&file.name), POINTER_BYTES)
    } else {
        Ok(Vec::new())
    };
    if let Some(error) =
        weight_formats::pointer(&format!("{} of {}", file.name, file.address.told()), &begin.unwrap_or_default())
    {
        return Err(error);
    }
    let problem = "what was sent does not begin like such a file";
    Err(refusal::error(&file.doing(), Refusal::Other(problem.to_string())))
}

struct Repository<'a> {
    address: &'a Arc<Address>,
    progress: &'a dyn Progress,
    check: &'a dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
    snapshot: Snapshot,
}

impl Repository<'_> {
    /// Names of the files of weights that transformers would read, and what to know of the choice. A single file comes first, so
    /// that an index in the cache is believed only where the commit has no single file beside it.
    fn weights(&self) -> Result<(Vec<String>, Option<String>)> {
        let (snapshot, single) = (&self.snapshot, || (vec![SINGLE.to_string()], None));
        let indexed = snapshot.has(INDEX);
        if snapshot.has(SINGLE) || (environment::offline() && !indexed) {
            return Ok(single());
        }
        if !environment::offline() && !snapshot.lacks(SINGLE) {
            let http = Arc::new(Http::new()?);
            let names = [SINGLE, INDEX].into_iter();
            let patience = if indexed { Patience::brief } else { Patience::default };
            let mut found = ask_all(&http, self.address, &snapshot.commit, names, patience)?;
            let (index, asked) = (found.remove(1), found.remove(0));
            match (asked, index) {
                (Ok(_), index) => {
                    let told = |_| {
                        format!(
                            "{}: {SINGLE} is read and {INDEX} is not: transformers chooses the same",
                            self.address.told()
                        )
                    };
                    return Ok((single().0, index.ok().map(told)));
                }
                (Err(error), Err(other))
                    if error.kind == Kind::NotFound && other.kind == Kind::NotFound && !indexed =>
                {
                    let source = Streamed::of_commit(self.address, http, &snapshot.commit);
                    let listed = source.listing().unwrap_or_default();
                    let found = weight_formats::instead(&self.address.told(), &listed, |name| source.small(name));
                    return Err(found.unwrap_or(error));
                }
                (Err(error), _) if error.kind == Kind::NotFound => snapshot.note_absence(SINGLE),
                // What is in the cache serves a hub that does not answer.
                (Err(error), _) if error.kind != Kind::Io || !indexed => return Err(error),
                _ => (),
            }
        }
        match self.optional(INDEX)? {
            Some(index) => Ok((shards::names(&small(&index)?, &snapshot.folder().display().to_string())?, None)),
            None => Ok(single()),
        }
    }

    /// Looks at weights before they are downloaded. A network over which their headers cannot be read may still bring them.
    fn look(&self, http: &Arc<Http>) -> Result<()> {
        let source = Streamed::of_commit(self.address, http.clone(), &self.snapshot.commit);
        match (self.check)(Arc::new(source)) {
            Err(error) if matches!(error.kind, Kind::Io | Kind::Timeout) => Ok(()),
            outcome => outcome,
        }
    }

    /// Downloads files by name, of which some must exist.
    fn fetch(&self, names: &[(String, bool)]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        if environment::offline() {
            let needed = names.iter().find(|(_, required)| *required);
            return needed.map_or(Ok(()), |(name, _)| Err(refusal::error(&self.address.doing(name), Refusal::Offline)));
        }
        let http = Arc::new(Http::new()?);
        let found =
            resolve_all(&http, self.address, &self.snapshot.commit, names.iter().map(|(name, _)| name.as_str()))?;
        let mut files = Vec::new();
        for (found, (_, required)) in found.into_iter().zip(names) {
            match found {
                Err(error) if error.kind == Kind::NotFound && !required => (),
                found => files.push(found?),
            }
        }
        fits(&files, &self.snapshot, &self.address.id)?;
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        if total > LOOKED_AT_FIRST {
            self.look(&http)?;
        }
        let what = format!("downloading {}, {} files, {:.2} GB", self.address.id, files.len(), total as f64 / 1e9);
        self.progress.event(Event::Begin { what, total });
        let mut tally = Tally::new(self.progress);
        for file in &files {
            fetched(&http, file, &self.snapshot, &mut tally)?;
        }
        self.progress.event(Event::Step { done: total, bytes: total, tokens: 0 });
        self.progress.event(Event::End);
        Ok(())
    }

    /// Where a file of this commit is, fetched if it is missing; None where the commit has no such file.
    fn optional(&self, name: &str) -> Result<Option<PathBuf>> {
        if !self.snapshot.has(name) {
            if environment::offline() {
                return Ok(None);
            }
            let http = Arc::new(Http::new()?);
            match resolve_all(&http, self.address, &self.snapshot.commit, [name].into_iter())?.remove(0) {
                Err(error) if error.kind == Kind::NotFound => return Ok(None),
                file => fetched(&http, &file?, &self.snapshot, &mut Tally::new(self.progress))?,
            }
        }
        Ok(Some(self.snapshot.file(name)))
    }
}

/// Asks the hub for several files; one answer per name.
pub fn resolve_all<'a>(
    http: &Arc<Http>,
    address: &Arc<Address>,
    revision: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Result<Arc<RemoteFile>>>> {
    ask_all(http, address, revision, names, Patience::default)
}

fn ask_all<'a>(
    http: &Arc<Http>,
    address: &Arc<Address>,
    revision: &str,
    names: impl Iterator<Item = &'a str>,
    patience: fn() -> Patience,
) -> Result<Vec<Result<Arc<RemoteFile>>>> {
    let (http, address, revision) = (http.clone(), address.clone(), revision.to_string());
    let names: Vec<_> = names.map(str::to_string).collect();
    http::wait(async move {
        let at_once = Arc::new(Semaphore::new(QUESTIONS));
        let ask = |name: String| {
            let (http, address, revision, at_once) = (http.clone(), address.clone(), revision.clone(), at_once.clone());
            tokio::spawn(async move {
                let _place = at_once.acquire().await;
                RemoteFile::resolve(&http, &address, &revision, &name, patience()).await.map(Arc::new)
            })
        };
        let tasks: Vec<_> = names.into_iter().map(ask).collect();
        let mut found = Vec::new();
        for task in tasks {
            found.push(task.await.map_err(|e| Error::new(Kind::Io, format!("asking the hub: {e}")))?);
        }
        Ok(found)
    })
}
