//! GGUF files of repositories on the hub. Such repositories have a file for each type, and mostly
//! no config.json, so that a model is named by its repository and one of them.

use std::path::Path;
use std::sync::Arc;

use super::{Gguf, TOKENIZER};
use crate::error::{Error, Kind, Result};
use crate::hub::cache::download::{Tally, fits};
use crate::hub::cache::layout::{Cache, Snapshot};
use crate::hub::cache::repository::{self, LOOKED_AT_FIRST};
use crate::hub::environment;
use crate::hub::failure::refused;
use crate::hub::http::client::{Http, Patience};
use crate::hub::http::questions::ask_all;
use crate::hub::http::refusal::Refusal;
use crate::hub::http::resolve::{Address, RemoteFile, RepositoryKind, check_revision};
use crate::hub::names::{is_commit, is_file_path};
use crate::hub::weights::folder::Folder;
use crate::hub::weights::gguf_files;
use crate::hub::weights::shards::LAYOUTS;
use crate::hub::weights::source::ByteSource;
use crate::hub::weights::streamed::Streamed;
use crate::hub::weights::weight_formats::ADAPTER;
use crate::progress::{Event, Progress};
use crate::record::DEFAULT_REVISION;
use crate::words::counted;

/// The files of a model, and a tokenizer.json.
type Files = (Vec<Arc<RemoteFile>>, Option<Arc<RemoteFile>>);

/// A model in one of the GGUF files of a repository.
pub(crate) struct Named {
    address: Arc<Address>,
    /// The path of a file, or a part of its name such as its type.
    wanted: String,
    /// True if nobody has named the file, because there is no other model.
    alone: bool,
}

impl Named {
    /// `owner/name:Q8_0`, or `owner/name/FILE.gguf`; None for other ids.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let (repository, wanted) = match id.split_once(':') {
            Some(parts) => parts,
            None => {
                let end = id.match_indices('/').nth(1)?.0;
                (&id[..end], Some(&id[end + 1..]).filter(|file| gguf_files::is_gguf(file))?)
            }
        };
        let address = Address::new(RepositoryKind::Model, repository).filter(|address| !address.is_bare())?;
        is_file_path(wanted).then(|| Self { address: Arc::new(address), wanted: wanted.to_string(), alone: false })
    }

    /// The only model of a repository, if it is in a GGUF file and there are no other weights.
    /// `error` says why the repository was not read as others are: what it has decides, or, if the
    /// hub does not answer, what the cache has of it.
    pub(crate) fn only(address: &Arc<Address>, revision: Option<&str>, error: &Error) -> Option<Self> {
        let revision = revision.unwrap_or("main");
        let names = match error.kind {
            Kind::Unsupported => {
                let http = Arc::new(Http::new().ok()?);
                Streamed::all_files(&http, address, revision, Patience::brief).ok()?
            }
            kind if kind == Kind::Io || environment::offline() => {
                let cache = Cache::of(&address.id).ok()?;
                files_below(&repository::noted(&cache, revision)?.folder(), "")
            }
            _ => return None,
        };
        let others = LAYOUTS.iter().flat_map(|layout| [layout.single, layout.index]).chain([ADAPTER]);
        if others.into_iter().any(|other| names.iter().any(|name| name == other)) {
            return None;
        }
        match &gguf_files::models(names)[..] {
            [only] => Some(Self { address: address.clone(), wanted: only.clone(), alone: true }),
            _ => None,
        }
    }

    /// A note for the user about the choice of the file.
    pub(crate) fn note(&self) -> Option<String> {
        self.alone.then(|| gguf_files::only(&self.told(), &self.wanted))
    }

    fn told(&self) -> String {
        self.address.told()
    }

    /// The model, read from the hub by ranges, and its commit.
    ///
    /// # Errors
    /// `not_found` if there is no such repository, revision or file, or if several files have this
    /// name, `io` if the hub does not answer.
    pub(crate) fn stream(&self, revision: Option<&str>) -> Result<(Gguf, String)> {
        let http = Arc::new(Http::new()?);
        let (files, _) = self.ask(&http, revision.unwrap_or(DEFAULT_REVISION), Patience::default)?;
        let commit = files[0].commit.clone();
        Ok((self.streamed(http, files), commit))
    }

    /// The model in the cache, and its commit; what is missing there is downloaded. Before a large
    /// download, `check` is called with the files on the hub.
    ///
    /// # Errors
    /// As `stream`, `corrupt` if received data is not what the hub announces, and the errors of
    /// `check`. If the hub does not answer, the cache is used.
    pub(crate) fn download(
        &self,
        revision: Option<&str>,
        progress: &dyn Progress,
        check: &dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
    ) -> Result<(Gguf, String)> {
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        check_revision(&self.address, revision)?;
        let cache = Cache::of(&self.address.id)?;
        let cached = repository::noted(&cache, revision).and_then(|snapshot| self.cached(snapshot));
        if environment::offline() {
            return cached.ok_or_else(|| refused(&self.address.doing(&self.wanted), Refusal::Offline));
        }
        let http = Arc::new(Http::new()?);
        let answer = match cached {
            // The hub has one short chance to answer, because there is an alternative.
            Some(_) => self.ask(&Arc::new(Http::new()?.hurried()), revision, Patience::once),
            None => self.ask(&http, revision, Patience::default),
        };
        let (files, tokenizer) = match (answer, cached) {
            (Err(error), Some((model, commit))) if error.kind == Kind::Io => {
                let problem = repository::problem(&error, &self.address);
                repository::tell(&self.address, &cache.snapshot(&commit), &problem, progress);
                return Ok((model, commit));
            }
            (answer, _) => answer?,
        };
        let snapshot = cache.snapshot(&files[0].commit);
        let missing: Vec<_> =
            files.iter().chain(&tokenizer).filter(|file| !snapshot.has(&file.name)).cloned().collect();
        if !missing.is_empty() {
            cache.sweep();
            fits(&missing, &snapshot, &self.address.id)?;
            let total: u64 = missing.iter().map(|file| file.bytes).sum();
            if total > LOOKED_AT_FIRST {
                match check(Arc::new(self.streamed(http.clone(), files.clone()))) {
                    Err(error) if matches!(error.kind, Kind::Io | Kind::Timeout) => (),
                    outcome => outcome?,
                }
            }
            let count = counted(missing.len(), "file");
            let what = format!("downloading {}, {count}, {:.2} GB", self.address.id, total as f64 / 1e9);
            progress.event(Event::Begin { what, total });
            let mut tally = Tally::new(progress);
            for file in &missing {
                repository::fetched(&http, file, &snapshot, &mut tally)?;
            }
            progress.event(Event::Step { done: total, bytes: total, tokens: 0, seconds: 0.0 });
            progress.event(Event::End);
        }
        if !is_commit(revision) {
            cache.note(revision, &snapshot.commit)?;
        }
        let names = files.iter().map(|file| file.name.clone()).collect();
        Ok((of_snapshot(&snapshot, names), snapshot.commit))
    }

    /// The files of the model, and the tokenizer beside them.
    fn ask(&self, http: &Arc<Http>, revision: &str, patience: fn() -> Patience) -> Result<Files> {
        check_revision(&self.address, revision)?;
        let listed = Streamed::all_files(http, &self.address, revision, patience)?;
        let has_tokenizer = listed.iter().any(|name| name == TOKENIZER);
        let names = gguf_files::chosen(&self.told(), &gguf_files::models(listed), &self.wanted)?;
        // All of one commit, even if a branch moves meanwhile.
        let first = ask_all(http, &self.address, revision, [&*names[0]].into_iter(), patience)?.remove(0)?;
        let others = names[1..].iter().map(String::as_str).chain(has_tokenizer.then_some(TOKENIZER));
        let others: Result<Vec<_>> =
            ask_all(http, &self.address, &first.commit, others, patience)?.into_iter().collect();
        let mut files = [vec![first], others?].concat();
        let tokenizer = files.pop_if(|last| last.name == TOKENIZER);
        Ok((files, tokenizer))
    }

    fn streamed(&self, http: Arc<Http>, files: Vec<Arc<RemoteFile>>) -> Gguf {
        let (commit, first) = (files[0].commit.clone(), files[0].name.clone());
        let source = Streamed::of_commit(&self.address, http, &commit).of_files(files);
        let place = format!("{}/{first}", source.place());
        Gguf::over(Box::new(source), place)
    }

    /// The model in a snapshot, if all of its files are there.
    fn cached(&self, snapshot: Snapshot) -> Option<(Gguf, String)> {
        let models = gguf_files::models(files_below(&snapshot.folder(), ""));
        let names = gguf_files::chosen(&self.told(), &models, &self.wanted).ok()?;
        let whole = names.iter().all(|name| snapshot.has(name)) && snapshot.damaged(TOKENIZER).is_none();
        whole.then(|| (of_snapshot(&snapshot, names), snapshot.commit))
    }
}

/// The model at a place that `Gguf` has returned; None for places of other sources.
pub(crate) fn at(place: &str) -> Option<Result<Gguf>> {
    let (id, behind) = place.split_once('@')?;
    let (commit, file) = behind.split_once('/').filter(|(_, file)| gguf_files::is_gguf(file) && is_file_path(file))?;
    let source = Streamed::at(&format!("{id}@{commit}"))?;
    let source = source.and_then(|source| source.named(&gguf_files::parts(file)));
    Some(source.map(|source| Gguf::over(Box::new(source), place.to_string())))
}

fn of_snapshot(snapshot: &Snapshot, names: Vec<String>) -> Gguf {
    let place = snapshot.file(&names[0]).display().to_string();
    Gguf::over(Box::new(Folder::of_files(&snapshot.folder(), names)), place)
}

/// Paths of the files in a folder and in the folders in it.
fn files_below(folder: &Path, below: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all = Vec::new();
    for entry in entries {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true if below.is_empty() => all.extend(files_below(&entry.path(), &format!("{name}/"))),
            true => (),
            false => all.push(name),
        }
    }
    all
}
