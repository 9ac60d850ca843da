//! A model on the hub that is read without being downloaded: small files whole into memory, weights by ranges.

use std::sync::{Arc, OnceLock};

use super::fetch::fetch;
use super::http::{self, Http};
use super::names::is_commit;
use super::ranges::{Limits, Ranges};
use super::repository::{first_answer, resolve_all};
use super::resolve::{Address, RemoteFile, RepositoryKind};
use super::shards::{self, INDEX, SINGLE};
use super::source::{Announcement, ByteSource, SMALL_FILE, SourceFile, Tag, too_large};
use crate::error::{Error, Kind, Result};

/// What `place` begins with, for models on the hub.
const SCHEME: &str = "hf://";

pub struct Streamed {
    address: Arc<Address>,
    http: Arc<Http>,
    pub commit: String,
    opened: OnceLock<(Vec<SourceFile>, Arc<Ranges>)>,
}

impl Streamed {
    /// Asks which commit `revision` is; everything is read from that one. With `hurried` the hub gets one short chance to
    /// answer: there is something else to use.
    pub fn open(address: &Arc<Address>, revision: Option<&str>, hurried: bool) -> Result<Self> {
        let http = Arc::new(Http::new()?);
        let config = first_answer(address, revision.unwrap_or("main"), hurried)?;
        Ok(Self { address: address.clone(), http, commit: config.commit.clone(), opened: OnceLock::new() })
    }

    /// The model that a `place` names.
    pub fn at(place: &str) -> Option<Result<Self>> {
        let (id, commit) = place.strip_prefix(SCHEME)?.split_once('@').filter(|(_, commit)| is_commit(commit))?;
        let address = Arc::new(Address::new(RepositoryKind::Model, id)?);
        let model = |http| Self { address, http: Arc::new(http), commit: commit.to_string(), opened: OnceLock::new() };
        Some(Http::new().map(model))
    }

    fn resolve(&self, names: &[String]) -> Result<Vec<Result<Arc<RemoteFile>>>> {
        resolve_all(&self.http, &self.address, &self.commit, names.iter().map(String::as_str))
    }

    fn opened(&self) -> Result<&(Vec<SourceFile>, Arc<Ranges>)> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let names = match self.small(INDEX)? {
            Some(index) => shards::names(&index, &self.place())?,
            None => vec![SINGLE.to_string()],
        };
        let files: Vec<Arc<RemoteFile>> = self.resolve(&names)?.into_iter().collect::<Result<_>>()?;
        let described = files.iter().map(|file| SourceFile {
            name: file.name.clone(),
            bytes: file.bytes,
            announced_sha256: file.announced_sha256(),
        });
        Ok(self
            .opened
            .get_or_init(|| (described.collect(), Ranges::new(self.http.clone(), files.clone(), Limits::STREAM))))
    }
}

/// All bytes of a small file, which are what the hub announced.
fn whole(http: &Arc<Http>, file: &Arc<RemoteFile>) -> Result<Vec<u8>> {
    if file.bytes > SMALL_FILE {
        return Err(too_large(&file.doing(), file.bytes));
    }
    let (asked, asking) = (file.clone(), http.clone());
    let data = match file.bytes {
        0 => Vec::new(),
        _ => http::wait(async move { fetch(&asking, &asked, 0..asked.bytes).await })?,
    };
    let found = file.hash.same_of(&data);
    if found == file.hash.digits() { Ok(data) } else { Err(file.damaged(&found, "run again")) }
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
        whole(&self.http, &file).map(Some)
    }

    fn files(&self) -> Result<&[SourceFile]> {
        Ok(&self.opened()?.0)
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (files, ranges) = self.opened()?;
        ranges.read(file, offset, buffer).map_err(|error| match error.kind {
            Kind::Interrupted => error,
            _ => Error { message: format!("streaming {}: {}", files[file].name, error.message), ..error },
        })
    }

    fn expect(&self, tag: Tag, announcement: Announcement) {
        if let Ok((_, ranges)) = self.opened() {
            ranges.expect(tag, announcement);
        }
    }

    fn forget(&self, tags: &[Tag]) {
        if let Some((_, ranges)) = self.opened.get() {
            ranges.forget(tags);
        }
    }
}
