//! A model on the hub that is read without a download: small files as a whole, weights by ranges.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::folders;
use super::shards::{LAYOUTS, Layout, nothing};
use super::source::{Announcement, ByteSource, SMALL_FILE, SourceFile, Tag, too_large};
use super::weight_formats;
use crate::error::{Error, Kind, Result};
use crate::hub::foreign;
use crate::hub::http::client::{self, Http, Patience};
use crate::hub::http::fetch::fetch;
use crate::hub::http::questions::{ask_all, resolve_all};
use crate::hub::http::ranges::{Limits, Ranges};
use crate::hub::http::resolve::{Address, RemoteFile, RepositoryKind};
use crate::hub::names::{is_commit, is_file_path};
use crate::outside::without_bom;
use crate::record::DEFAULT_REVISION;

pub(crate) const CONFIG: &str = "config.json";
/// The prefix of `place` for models on the hub.
const SCHEME: &str = "hf://";

pub(crate) struct Streamed {
    address: Arc<Address>,
    http: Arc<Http>,
    pub commit: String,
    /// None if there are no weights.
    opened: OnceLock<Option<Weights>>,
}

struct Weights {
    described: Vec<SourceFile>,
    ranges: Arc<Ranges>,
    note: Option<String>,
}

/// An entry in the list of files of a commit.
#[derive(Deserialize)]
struct Listed {
    path: String,
}

/// The hub's bot that converts weights to safetensors, and the title of its pull requests.
const CONVERTER: &str = "SFconvertbot";
const CONVERSION: &str = "Adding `safetensors` variant of this model";

#[derive(Deserialize)]
struct Requests {
    discussions: Vec<Request>,
}

/// A pull request.
#[derive(Deserialize)]
struct Request {
    num: u32,
    title: String,
    author: Author,
}

#[derive(Deserialize)]
struct Author {
    name: String,
}

/// Weight files, and a note about the choice.
type Chosen = (Vec<Arc<RemoteFile>>, Option<String>);

impl Streamed {
    /// Queries the commit of `revision`, from which everything is read. If `hurried`, the hub has
    /// one short chance to answer, because there is an alternative.
    pub(crate) fn open(address: &Arc<Address>, revision: Option<&str>, hurried: bool) -> Result<Self> {
        let http = Arc::new(Http::new()?);
        let config = first_answer(address, revision.unwrap_or(DEFAULT_REVISION), hurried)?;
        Ok(Self::of_commit(address, http, &config.commit))
    }

    pub(crate) fn of_commit(address: &Arc<Address>, http: Arc<Http>, commit: &str) -> Self {
        Self { address: address.clone(), http, commit: commit.to_string(), opened: OnceLock::new() }
    }

    /// The model at a `place`.
    pub(crate) fn at(place: &str) -> Option<Result<Self>> {
        let (id, commit) = place.strip_prefix(SCHEME)?.split_once('@').filter(|(_, commit)| is_commit(commit))?;
        let address = Arc::new(Address::new(RepositoryKind::Model, id)?);
        Some(Http::new().map(|http| Self::of_commit(&address, Arc::new(http), commit)))
    }

    /// With these weight files of its commit.
    pub(crate) fn of_files(self, files: Vec<Arc<RemoteFile>>) -> Self {
        let weights = self.weights_in(files, None);
        Self { opened: OnceLock::from(Some(weights)), ..self }
    }

    /// With the weight files of these names.
    pub(crate) fn named(self, names: &[String]) -> Result<Self> {
        let files: Result<_> = self.resolve(names)?.into_iter().collect();
        Ok(self.of_files(files?))
    }

    /// The paths of all files of a revision, in folders too.
    pub(crate) fn all_files(
        http: &Arc<Http>,
        address: &Address,
        revision: &str,
        patience: fn() -> Patience,
    ) -> Result<Vec<String>> {
        let doing = address.doing("the list of files");
        let pages: Vec<Vec<Listed>> = http.json(&address.all_path(revision), &doing, patience)?;
        Ok(pages.into_iter().flatten().map(|entry| entry.path).collect())
    }

    fn resolve(&self, names: &[String]) -> Result<Vec<Result<Arc<RemoteFile>>>> {
        resolve_all(&self.http, &self.address, &self.commit, names.iter().map(String::as_str))
    }

    fn found(&self) -> Result<Option<&Weights>> {
        if self.opened.get().is_none() {
            let chosen = self.chosen()?;
            let _ = self.opened.set(chosen.map(|(files, note)| self.weights_in(files, note)));
        }
        Ok(self.opened.get().and_then(Option::as_ref))
    }

    fn weights_in(&self, files: Vec<Arc<RemoteFile>>, note: Option<String>) -> Weights {
        let describe = |file: &Arc<RemoteFile>| SourceFile {
            name: file.name.clone(),
            bytes: file.bytes,
            announced_sha256: file.announced_sha256(),
        };
        let described = files.iter().map(describe).collect();
        Weights { described, ranges: Ranges::new(self.http.clone(), files, Limits::STREAM), note }
    }

    /// The files that transformers would read, as in a folder, and a note about the choice.
    fn chosen(&self) -> Result<Option<Chosen>> {
        for layout in &LAYOUTS {
            if let Some(chosen) = self.chosen_of(layout)? {
                return Ok(Some(chosen));
            }
        }
        let names = self.listing().unwrap_or_default();
        let instead = weight_formats::instead(&self.place(), Some(&self.address.id), &names, |name| self.small(name));
        instead.map_or(Ok(None), Err)
    }

    fn chosen_of(&self, layout: &Layout) -> Result<Option<Chosen>> {
        let mut found = self.resolve(&[layout.single.to_string(), layout.index.to_string()])?;
        let (index, single) = (found.remove(1), found.remove(0));
        match (single, index) {
            (Ok(single), index) => {
                let index = index.ok().and_then(|index| whole(&self.http, &index).ok());
                let note = index.and_then(|index| layout.beside_single(&index, &self.place()));
                Ok(Some((vec![single], note)))
            }
            (Err(error), _) if error.kind != Kind::NotFound => Err(error),
            (_, Ok(index)) => {
                let index = whole(&self.http, &index)?;
                let names = layout.names(&index, &self.place())?;
                let found = self.resolve(&names)?;
                if found.iter().all(|file| file.as_ref().is_err_and(|error| error.kind == Kind::NotFound)) {
                    return Err(self.only_index(layout.index, names.len()));
                }
                Ok(Some((found.into_iter().collect::<Result<_>>()?, None)))
            }
            (_, Err(error)) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(None),
        }
    }

    /// The error of an index that names so many files, none of which is there.
    pub(crate) fn only_index(&self, index: &str, count: usize) -> Error {
        let names = self.listing().unwrap_or_default();
        weight_formats::only_index(&self.address.told(), index, count, &names, |name| self.small(name))
    }

    fn opened(&self) -> Result<&Weights> {
        self.found()?.ok_or_else(|| nothing(&self.place(), &self.models_below()))
    }
}

/// Queries the hub for a model's configuration, which shows whether the model exists, and the
/// commit of `revision`. If `hurried`, there is one attempt.
pub(crate) fn first_answer(address: &Arc<Address>, revision: &str, hurried: bool) -> Result<Arc<RemoteFile>> {
    let is_folder =
        address.is_bare() || address.kind == RepositoryKind::Model && folders::nearest(&address.id).is_some();
    let (http, patience): (_, fn() -> Patience) = match (hurried, is_folder) {
        (true, _) => (Http::new()?.hurried(), Patience::once),
        (false, true) => (Http::new()?, Patience::brief),
        (false, false) => (Http::new()?, Patience::default),
    };
    let http = Arc::new(http);
    let answer = ask_all(&http, address, revision, [CONFIG].into_iter(), patience)?.remove(0);
    answer.map_err(|error| match hurried {
        true => error,
        false => address.unknown(without_config(&http, address, revision, error)),
    })
}

/// The error of a repository without `config.json`, which describes its other files.
fn without_config(http: &Arc<Http>, address: &Arc<Address>, revision: &str, error: Error) -> Error {
    let source = Streamed::of_commit(address, http.clone(), revision);
    let listed = if error.kind == Kind::NotFound { source.listing() } else { None };
    let instead = |names: Vec<String>| {
        weight_formats::instead(&address.told(), Some(&address.id), &names, |name| source.small(name))
    };
    listed.and_then(instead).unwrap_or(error)
}

/// All bytes of a small file, checked against the hub's announcement.
fn whole(http: &Arc<Http>, file: &Arc<RemoteFile>) -> Result<Vec<u8>> {
    if file.bytes > SMALL_FILE {
        return Err(too_large(&file.doing(), file.bytes));
    }
    let (asked, asking) = (file.clone(), http.clone());
    let data = match file.bytes {
        0 => Vec::new(),
        _ => client::wait(async move { fetch(&asking, &asked, 0..asked.bytes).await })?,
    };
    let found = file.hash.same_of(&data);
    if found != file.hash.digits() {
        return Err(file.damaged(&found, "run again"));
    }
    foreign::no_json(&format!("{} of {}", file.name, file.address.told()), &data).map_or(Ok(data), Err)
}

impl ByteSource for Streamed {
    fn place(&self) -> String {
        format!("{SCHEME}{}@{}", self.address.id, self.commit)
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = match self.resolve(&[name.to_string()])?.remove(0) {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            file => file?,
        };
        whole(&self.http, &file).map(without_bom).map(Some)
    }

    fn weights(&self) -> Result<Option<&[SourceFile]>> {
        Ok(self.found()?.map(|weights| &weights.described[..]))
    }

    /// Of the whole commit, without folders.
    fn listing(&self) -> Option<Vec<String>> {
        let doing = self.address.doing("the list of files");
        let pages: Vec<Vec<Listed>> =
            self.http.json(&self.address.root_path(&self.commit), &doing, Patience::brief).ok()?;
        Some(pages.into_iter().flatten().map(|entry| entry.path).filter(|path| is_file_path(path)).collect())
    }

    fn converted(&self) -> Option<String> {
        let doing = self.address.doing("the list of pull requests");
        let path = self.address.requests_path(CONVERTER);
        let pages: Vec<Requests> = self.http.json(&path, &doing, Patience::once).ok()?;
        let is_it = |request: &Request| request.author.name == CONVERTER && request.title == CONVERSION;
        let found = pages.into_iter().flat_map(|page| page.discussions).find(is_it)?;
        Some(format!("refs/pr/{}", found.num))
    }

    fn note(&self) -> Option<&str> {
        self.opened.get()?.as_ref()?.note.as_deref()
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Weights { described: files, ranges, .. } = self.opened()?;
        ranges.read(file, offset, buffer).map_err(|error| match error.kind {
            Kind::Interrupted => error,
            _ => Error { message: format!("streaming {}: {}", files[file].name, error.message), ..error },
        })
    }

    fn expect(&self, tag: Tag, announcement: Announcement) {
        if let Ok(Weights { ranges, .. }) = self.opened() {
            ranges.expect(tag, announcement);
        }
    }

    fn forget(&self, tags: &[Tag]) {
        if let Some(Some(Weights { ranges, .. })) = self.opened.get() {
            ranges.forget(tags);
        }
    }
}
