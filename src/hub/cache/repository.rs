//! A model of the hub in the Hugging Face cache: the needed files, and the download of missing
//! ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::download::{Tally, download, fits};
use super::layout::{Cache, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::hub::environment;
use crate::hub::failure::refused;
use crate::hub::foreign;
use crate::hub::http::client::{Http, Patience};
use crate::hub::http::questions::{ask_all, resolve_all};
use crate::hub::http::refusal::Refusal;
use crate::hub::http::resolve::{Address, RemoteFile, check_revision};
use crate::hub::names::is_commit;
use crate::hub::weights::shards::{LAYOUTS, Layout, PYTORCH, SAFETENSORS};
use crate::hub::weights::source::{ByteSource, SMALL_FILE, too_large};
use crate::hub::weights::streamed::{CONFIG, Streamed, first_answer};
use crate::hub::weights::weight_formats;
use crate::outside;
use crate::progress::{Event, Progress};
use crate::record::DEFAULT_REVISION;
use crate::words::counted;

/// The largest number of missing files in an error message.
const NAMED: usize = 3;
const TOKENIZER: &str = "tokenizer.json";

/// Size of weights in bytes from which on their headers are read before the download. Smaller ones
/// arrive as quickly.
pub(crate) const LOOKED_AT_FIRST: u64 = 64 << 20;

/// Names of weight files, and a note about the choice.
type Chosen = (Vec<String>, Option<String>);

/// The folder of a snapshot and its commit.
pub(crate) struct Located {
    pub folder: PathBuf,
    pub revision: String,
    /// A note for the user about the choice of files.
    pub note: Option<String>,
}

/// All files of a model in the cache; missing ones are downloaded. Before a large download, `check`
/// is called with the files on the hub. If the hub does not answer and the whole model is cached,
/// the cache is used and one line reports it.
///
/// # Errors
/// `not_found` if the model, the revision or a needed file does not exist; `corrupt` if received
/// data is not what the hub announces; `unsupported` for weights in another format; `io` if the hub
/// does not answer and the cache is incomplete; and the errors of `check`.
pub(crate) fn locate(
    address: &Arc<Address>,
    revision: Option<&str>,
    progress: &dyn Progress,
    check: &dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
) -> Result<Located> {
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    check_revision(address, revision)?;
    let cache = Cache::of(&address.id)?;
    let (snapshot, silence) = commit(address, &cache, revision, progress)?;
    let mut repository = Repository { address, progress, check, snapshot, silence };
    // The other files are those of the same commit, even if a branch moves meanwhile.
    let (names, note) = repository.weights()?;
    let missing = names.into_iter().map(|name| (name, true)).chain([(TOKENIZER.to_string(), false)]);
    let missing: Vec<_> = missing.filter(|(name, _)| !repository.snapshot.has(name)).collect();
    if !missing.is_empty() && !environment::offline() {
        cache.sweep();
    }
    repository.fetch(&missing)?;
    if let Some(damaged) = repository.snapshot.damaged(TOKENIZER) {
        return Err(and(
            damaged,
            &repository.alone().unwrap_or_else(|| "the hub has no such file".to_string()),
            address,
        ));
    }
    if let Some(problem) = &repository.silence {
        tell(address, &repository.snapshot, problem, progress);
    }
    Ok(Located { folder: repository.snapshot.folder(), revision: repository.snapshot.commit, note })
}

/// The last known commit of `revision`, if all of its files are cached.
pub(crate) fn whole(address: &Arc<Address>, revision: Option<&str>) -> Result<Option<Snapshot>> {
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    check_revision(address, revision)?;
    let Some(snapshot) = Cache::of(&address.id).ok().and_then(|cache| known(&cache, revision)) else { return Ok(None) };
    let there = |layout: &&Layout| snapshot.has(layout.single) || snapshot.has(layout.index);
    let Some(layout) = LAYOUTS.iter().find(there) else { return Ok(None) };
    let names = match snapshot.has(layout.single) {
        true => vec![layout.single.to_string()],
        false => layout.names(&small(&snapshot.file(layout.index))?, &snapshot.folder().display().to_string())?,
    };
    let good = snapshot.damaged(TOKENIZER).is_none() && names.iter().all(|name| snapshot.has(name));
    Ok(good.then_some(snapshot))
}

/// Reports once per commit that the cache is used because the hub does not answer.
pub(crate) fn tell(address: &Address, snapshot: &Snapshot, problem: &str, progress: &dyn Progress) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let (told, commit) = (address.told(), &snapshot.commit);
    if TOLD.lock().expect("no panic under this lock").insert(format!("{told} {commit}")) {
        let text = format!("{told}: {problem}: used as it is in the cache, commit {commit}");
        progress.event(Event::Warning(text));
    }
}

/// The bytes of a small file on this computer.
pub(crate) fn small(path: &Path) -> Result<Vec<u8>> {
    outside::read(path, SMALL_FILE)
        .map(outside::without_bom)
        .map_err(|e| outside::unreadable(path, &e, "is the folder that of a model?"))
}

/// The commit of a revision, or its last known commit.
pub(crate) fn noted(cache: &Cache, revision: &str) -> Option<Snapshot> {
    let commit = if is_commit(revision) { Some(revision.to_string()) } else { cache.commit(revision) };
    commit.map(|commit| cache.snapshot(&commit))
}

/// The same, if its configuration is cached.
fn known(cache: &Cache, revision: &str) -> Option<Snapshot> {
    noted(cache, revision).filter(|snapshot| snapshot.has(CONFIG))
}

/// The commit of a revision, with its configuration in the cache. A commit never changes, so that
/// cached files of it need no query. A branch is queried. If the hub does not answer, its last
/// known commit is used, with the problem.
fn commit(
    address: &Arc<Address>,
    cache: &Cache,
    revision: &str,
    progress: &dyn Progress,
) -> Result<(Snapshot, Option<String>)> {
    let cached = match known(cache, revision) {
        Some(snapshot) if is_commit(revision) || environment::offline() => return Ok((snapshot, None)),
        None if environment::offline() => return Err(offline(address, noted(cache, revision).as_ref(), CONFIG)),
        cached => cached,
    };
    let file = match (first_answer(address, revision, cached.is_some()), cached) {
        (Err(error), Some(cached)) if error.kind == Kind::Io => {
            return Ok((cached, Some(problem(&error, address))));
        }
        (Err(error), None) if error.kind == Kind::Io => {
            let damaged = noted(cache, revision).and_then(|snapshot| snapshot.damaged(CONFIG));
            return Err(damaged.map_or(error.clone(), |damaged| and(damaged, &problem(&error, address), address)));
        }
        (file, _) => file?,
    };
    let snapshot = cache.snapshot(&file.commit);
    if !snapshot.has(CONFIG) || snapshot.linked(CONFIG).is_some_and(|hash| hash != file.hash) {
        fetched(&Arc::new(Http::new()?), &file, &snapshot, &mut Tally::new(progress))?;
    }
    if !is_commit(revision) {
        cache.note(revision, &file.commit)?;
    }
    Ok((snapshot, None))
}

/// The error of a missing file in offline mode.
fn offline(address: &Address, snapshot: Option<&Snapshot>, name: &str) -> Error {
    let damaged = snapshot.and_then(|snapshot| snapshot.damaged(name));
    damaged.map_or_else(
        || refused(&address.doing(name), Refusal::Offline),
        |damaged| and(damaged, &format!("{} is set", environment::offline_by()), address),
    )
}

/// The error of a damaged cached file, with the problem that prevents a new download.
fn and(damaged: Error, problem: &str, address: &Address) -> Error {
    Error { message: format!("{}: {}, and {problem}", address.told(), damaged.message), ..damaged }
}

/// The reason why the hub does not answer, without the name of the requested file.
pub(crate) fn problem(error: &Error, address: &Address) -> String {
    error.message.strip_prefix(&format!("{}: ", address.told())).unwrap_or(&error.message).to_string()
}

/// Downloads a file and checks that it begins as its name says.
pub(crate) fn fetched(http: &Arc<Http>, file: &Arc<RemoteFile>, snapshot: &Snapshot, tally: &mut Tally) -> Result<()> {
    if file.bytes > SMALL_FILE && file.name.ends_with(".json") {
        return Err(too_large(&file.doing(), file.bytes));
    }
    download(http, file, snapshot, tally)?;
    // An error page can have the announced size and hash.
    if snapshot.has(&file.name) {
        return Ok(());
    }
    let begin = outside::beginning(&snapshot.file(&file.name), foreign::TELLING).unwrap_or_default();
    if let Some(error) = foreign::pointer(&format!("{} of {}", file.name, file.address.told()), &begin) {
        return Err(error);
    }
    let problem = "what was sent does not begin like such a file";
    Err(refused(&file.doing(), Refusal::Other(problem.to_string())))
}

struct Repository<'a> {
    address: &'a Arc<Address>,
    progress: &'a dyn Progress,
    check: &'a dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
    snapshot: Snapshot,
    /// The reason why the hub does not answer, once it has failed. Afterwards only necessary
    /// requests are made.
    silence: Option<String>,
}

impl Repository<'_> {
    /// The reason why no files can be fetched from the hub, if so.
    fn alone(&self) -> Option<String> {
        self.silence.clone().or_else(|| environment::offline().then(|| format!("{} is set", environment::offline_by())))
    }

    /// Names of the weight files that transformers would read, and a note about the choice.
    fn weights(&self) -> Result<Chosen> {
        for layout in &LAYOUTS {
            if let Some(chosen) = self.weights_of(layout)? {
                return Ok(chosen);
            }
        }
        if !(environment::offline() || self.silence.is_some()) {
            let source = Streamed::of_commit(self.address, Arc::new(Http::new()?), &self.snapshot.commit);
            let listed = source.listing().unwrap_or_default();
            let Address { id, .. } = &**self.address;
            let small = |name: &str| source.small(name);
            if let Some(error) = weight_formats::instead(&self.address.told(), Some(id), &listed, small) {
                return Err(error);
            }
        }
        // Fetching this file reports that it does not exist.
        Ok((vec![SAFETENSORS.single.to_string()], None))
    }

    /// The weight files of one format; None if the commit has none as far as is known. A single
    /// file has precedence, so that a cached index is used only if the commit has no single file.
    fn weights_of(&self, layout: &Layout) -> Result<Option<Chosen>> {
        let Layout { single, index } = *layout;
        let (snapshot, only) = (&self.snapshot, || (vec![single.to_string()], None));
        let indexed = snapshot.has(index);
        let alone = environment::offline() || self.silence.is_some();
        if snapshot.has(single) {
            return Ok(Some(only()));
        }
        if alone && !indexed {
            let problem = self.alone().unwrap_or_default();
            return match (snapshot.damaged(single), snapshot.damaged(index)) {
                (Some(_), _) => Ok(Some(only())),
                (None, Some(damaged)) => Err(and(damaged, &problem, self.address)),
                (None, None) => Ok(None),
            };
        }
        if !alone && !snapshot.lacks(single) {
            let http = Arc::new(Http::new()?);
            let others =
                single != PYTORCH.single && [PYTORCH.single, PYTORCH.index].iter().any(|name| snapshot.has(name));
            let patience = if indexed || others { Patience::brief } else { Patience::default };
            let mut found = ask_all(&http, self.address, &snapshot.commit, [single, index].into_iter(), patience)?;
            let (indexes, asked) = (found.remove(1), found.remove(0));
            match (asked, indexes) {
                (Ok(_), found) => {
                    let told = |_| {
                        format!(
                            "{}: {single} is read and {index} is not: transformers chooses the same",
                            self.address.told()
                        )
                    };
                    return Ok(Some((only().0, found.ok().map(told))));
                }
                (Err(error), Err(other))
                    if error.kind == Kind::NotFound && other.kind == Kind::NotFound && !indexed =>
                {
                    [single, index].into_iter().for_each(|name| snapshot.note_absence(name));
                    return Ok(None);
                }
                (Err(error), _) if error.kind == Kind::NotFound => snapshot.note_absence(single),
                // The cache is used if the hub does not answer.
                (Err(error), _) if error.kind == Kind::Io && !indexed && others => return Ok(None),
                (Err(error), _) if error.kind != Kind::Io || !indexed => return Err(error),
                _ => (),
            }
        }
        let Some(found) = self.index(index)? else { return Ok(None) };
        let names = layout.names(&small(&found)?, &snapshot.folder().display().to_string())?;
        Ok(Some((names, None)))
    }

    /// Checks weights before the download. If the network fails for their headers, the download is
    /// tried anyway.
    fn look(&self, http: &Arc<Http>) -> Result<()> {
        let source = Streamed::of_commit(self.address, http.clone(), &self.snapshot.commit);
        match (self.check)(Arc::new(source)) {
            Err(error) if matches!(error.kind, Kind::Io | Kind::Timeout) => Ok(()),
            outcome => outcome,
        }
    }

    /// The path of an index of this commit, fetched if it is missing; None if the commit has none.
    fn index(&self, name: &str) -> Result<Option<PathBuf>> {
        if !self.snapshot.has(name) {
            if environment::offline() || self.silence.is_some() || self.snapshot.lacks(name) {
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

    /// Downloads files by name. Some of them are required.
    fn fetch(&mut self, names: &[(String, bool)]) -> Result<()> {
        let needed: Vec<&str> = names.iter().filter(|(_, required)| *required).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() || (needed.is_empty() && (environment::offline() || self.silence.is_some())) {
            return Ok(());
        }
        if environment::offline() {
            let worst = needed.iter().find(|name| self.snapshot.damaged(name).is_some()).unwrap_or(&needed[0]);
            return Err(offline(self.address, Some(&self.snapshot), worst));
        }
        let http = Http::new()?;
        let (quick, patience): (_, fn() -> Patience) = match (needed.is_empty(), &self.silence) {
            (true, _) => (Http::new()?.hurried(), Patience::once),
            // The hub may have been silent for a moment only.
            (false, Some(_)) => (Http::new()?, Patience::brief),
            (false, None) => (Http::new()?, Patience::default),
        };
        let all = names.iter().map(|(name, _)| name.as_str());
        let found = ask_all(&Arc::new(quick), self.address, &self.snapshot.commit, all, patience)?;
        let absent = |(found, (_, required)): (&Result<_>, &(String, bool))| {
            !required || found.as_ref().is_err_and(|error: &Error| error.kind == Kind::NotFound)
        };
        if let Some(index) = LAYOUTS.iter().map(|layout| layout.index).find(|index| self.snapshot.has(index))
            && !needed.is_empty()
            && found.iter().zip(names).all(absent)
        {
            let source = Streamed::of_commit(self.address, Arc::new(Http::new()?), &self.snapshot.commit);
            return Err(source.only_index(index, needed.len()));
        }
        let mut files = Vec::new();
        for (found, (_, required)) in found.into_iter().zip(names) {
            match found {
                Err(error) if error.kind == Kind::NotFound && !required => (),
                Err(error) if error.kind == Kind::Io => {
                    let problem = problem(&error, self.address);
                    if let Some(damaged) = needed.iter().find_map(|name| self.snapshot.damaged(name)) {
                        return Err(and(damaged, &problem, self.address));
                    }
                    if !needed.is_empty() {
                        return Err(Error { message: self.incomplete(&needed, &problem), ..error });
                    }
                    self.silence = Some(problem);
                }
                found => files.push(found?),
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        self.silence = None;
        let http = Arc::new(http);
        fits(&files, &self.snapshot, &self.address.id)?;
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        if total > LOOKED_AT_FIRST {
            self.look(&http)?;
        }
        let count = counted(files.len(), "file");
        let what = format!("downloading {}, {count}, {:.2} GB", self.address.id, total as f64 / 1e9);
        self.progress.event(Event::Begin { what, total });
        let mut tally = Tally::new(self.progress);
        for file in &files {
            fetched(&http, file, &self.snapshot, &mut tally)?;
        }
        self.progress.event(Event::Step { done: total, bytes: total, tokens: 0, seconds: 0.0 });
        self.progress.event(Event::End);
        Ok(())
    }

    /// The problem if the hub does not answer and the cache lacks these files.
    fn incomplete(&self, needed: &[&str], problem: &str) -> String {
        let more = needed.len().saturating_sub(NAMED);
        let names = needed.iter().take(NAMED).map(|name| name.to_string());
        let names: Vec<String> = names.chain((more > 0).then(|| format!("{more} more"))).collect();
        let have = if needed.len() == 1 { "is" } else { "are" };
        let (told, names) = (self.address.told(), names.join(", "));
        format!("{told}: {names} {have} not in the cache, and {problem}")
    }
}
