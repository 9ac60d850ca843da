//! A file of a repository on the hub: its size, hash, commit, and current address.
//!
//! Large files are on another host: the hub redirects to a signed address that expires. The file's
//! properties are in the hub's own answer. The other host's ETag is another hash, and only shows
//! whether its answers belong together.

use std::sync::Arc;

use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, Url};
use tokio::sync::Mutex;

use super::attempt::Trouble;
use super::client::{Answer, Http, Patience};
use super::refusal::Refusal;
use crate::error::{Error, Kind, Result};
use crate::hub::failure::{Failure, refused};
use crate::hub::hash::Hash;
use crate::hub::names::{is_commit, is_file_path, is_revision};
use crate::hub::weights::source::SMALL_FILE;
use crate::plain::plain;

/// The largest file in bytes, twice the hub's own limit.
const LARGEST_FILE: u64 = 1 << 40;
/// The largest number of characters in a part of an id.
const LONGEST_NAME: usize = 128;
/// The forms of model ids.
pub(crate) const MODEL_IDS: &str =
    "give a folder with config.json and safetensors files, or a hub id such as \"allenai/OLMoE-1B-7B-0125\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepositoryKind {
    Model,
    Dataset,
}

/// A repository on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub kind: RepositoryKind,
    /// `owner/name`; for the oldest models and datasets `name`, which the hub redirects to the
    /// current one.
    pub id: String,
}

impl Address {
    /// None if `id` has neither the form `owner/name` nor that of a name such as `gpt2`.
    pub(crate) fn new(kind: RepositoryKind, id: &str) -> Option<Self> {
        let fits = match id.split_once('/') {
            Some((owner, name)) => is_name(owner) && is_name(name),
            None => is_name(id) && !is_file_name(id),
        };
        fits.then(|| Self { kind, id: id.to_string() })
    }

    /// True if it has no owner, so that it may be a misspelt folder.
    pub(crate) fn is_bare(&self) -> bool {
        !self.id.contains('/')
    }

    /// The error of the first query about it. For a name without an owner a folder may be meant.
    pub(crate) fn unknown(&self, error: Error) -> Error {
        if !self.is_bare() || self.kind != RepositoryKind::Model || !matches!(error.kind, Kind::NotFound | Kind::Io) {
            return error;
        }
        let told = self.told();
        let problem = error.message.strip_prefix(&format!("{told}: ")).unwrap_or(&error.message);
        let what = if error.kind == Kind::Io { "the hub cannot be asked for it" } else { "not a hub id" };
        let message = format!("{told}: no such folder, and {what}: {problem}");
        Error { kind: Kind::NotFound, message, ..error }.hint(MODEL_IDS)
    }

    fn resolve_path(&self, revision: &str, file: &str) -> String {
        let prefix = if self.kind == RepositoryKind::Dataset { "/datasets" } else { "" };
        format!("{prefix}/{}/resolve/{}/{}", self.id, encoded(revision, ""), encoded(file, "/"))
    }

    /// The API path of a revision.
    pub(crate) fn api_path(&self, revision: &str) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "datasets" } else { "models" };
        format!("/api/{kind}/{}/revision/{}", self.id, encoded(revision, ""))
    }

    /// The API path that lists a folder.
    pub(crate) fn tree_path(&self, commit: &str, folder: &str) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "datasets" } else { "models" };
        format!("/api/{kind}/{}/tree/{commit}/{}?recursive=true", self.id, encoded(folder, ""))
    }

    /// The API path that lists the top folder of a revision.
    pub(crate) fn root_path(&self, revision: &str) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "datasets" } else { "models" };
        format!("/api/{kind}/{}/tree/{}", self.id, encoded(revision, ""))
    }

    /// The API path that lists all folders of a revision.
    pub(crate) fn all_path(&self, revision: &str) -> String {
        format!("{}?recursive=true", self.root_path(revision))
    }

    /// The API path that lists the open pull requests of one author.
    pub(crate) fn requests_path(&self, author: &str) -> String {
        format!("/api/models/{}/discussions?type=pull_request&status=open&author={author}", self.id)
    }

    /// A description for messages.
    pub(crate) fn doing(&self, file: &str) -> String {
        format!("{}: fetching {file} from the hub", self.told())
    }

    pub(crate) fn told(&self) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "dataset" } else { "model" };
        format!("{kind} \"{}\"", self.id)
    }
}

/// True if a name is that of a file, which repositories do not have.
fn is_file_name(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    ["json", "jsonl", "safetensors", "gguf", "bin", "pt", "pth", "txt", "parquet", "csv", "rhai", "zip"]
        .contains(&&*ending)
}

fn is_name(part: &str) -> bool {
    let length = 1..=LONGEST_NAME;
    length.contains(&part.len())
        && !part.starts_with('.')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Percent-encodes all but letters, digits, `-._~` and `kept`.
pub(crate) fn encoded(text: &str, kept: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte);
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(crate) struct RemoteFile {
    pub address: Arc<Address>,
    pub commit: String,
    pub name: String,
    pub bytes: u64,
    /// The hash of its bytes.
    pub hash: Hash,
    place: Mutex<Place>,
}

#[derive(Clone)]
pub(crate) struct Place {
    pub url: Url,
    /// Number of times that the file was resolved.
    pub generation: u32,
    /// The ETag of this address.
    version: Option<String>,
}

struct Resolved {
    commit: String,
    bytes: u64,
    hash: Hash,
    url: Url,
}

impl RemoteFile {
    /// Queries the hub for a file of a branch, tag or commit.
    ///
    /// # Errors
    /// `bad_argument` if `revision` or `name` cannot be part of a path, `io` if the answer contains
    /// invalid names, and the hub's refusals.
    pub(crate) async fn resolve(
        http: &Http,
        address: &Arc<Address>,
        revision: &str,
        name: &str,
        patience: Patience,
    ) -> Result<Self> {
        check_revision(address, revision)?;
        if !is_file_path(name) {
            return Err(Error::of(Failure::NoFilePath { place: address.told(), name: name.to_string() }));
        }
        let found = resolve(http, address, revision, name, patience).await?;
        let (address, name, Resolved { commit, bytes, hash, url }) = (address.clone(), name.to_string(), found);
        let place = Mutex::new(Place { url, generation: 0, version: None });
        Ok(Self { address, commit, name, bytes, hash, place })
    }

    /// SHA-256 of the whole file as the hub announces it.
    pub(crate) fn announced_sha256(&self) -> Option<String> {
        matches!(self.hash, Hash::Sha256(_)).then(|| self.hash.digits().to_string())
    }

    pub(crate) fn doing(&self) -> String {
        self.address.doing(&self.name)
    }

    pub(crate) async fn place(&self) -> Place {
        self.place.lock().await.clone()
    }

    /// Queries the hub for the current address again, unless that was done since `generation`.
    ///
    /// # Errors
    /// `corrupt` if the file has changed.
    pub(crate) async fn resolve_again(&self, http: &Http, generation: u32) -> Result<()> {
        let mut place = self.place.lock().await;
        if place.generation != generation {
            return Ok(());
        }
        let found = resolve(http, &self.address, &self.commit, &self.name, Patience::default()).await?;
        if found.hash != self.hash || found.bytes != self.bytes {
            return Err(self.changed());
        }
        *place = Place { url: found.url, generation: generation + 1, version: None };
        Ok(())
    }

    /// Checks that an answer belongs to the same version of the file as earlier answers of the same
    /// address.
    pub(crate) async fn check_version(&self, generation: u32, headers: &HeaderMap) -> Result<()> {
        let Some(version) = headers.get("ETag").and_then(|value| value.to_str().ok()).map(plain_etag) else {
            return Ok(());
        };
        let mut place = self.place.lock().await;
        match &place.version {
            _ if place.generation != generation => Ok(()),
            Some(known) if *known != version => Err(self.changed()),
            Some(_) => Ok(()),
            None => {
                place.version = Some(version);
                Ok(())
            }
        }
    }

    /// The error of bytes whose hash `found` is not the announced one.
    pub(crate) fn damaged(&self, found: &str, hint: &str) -> Error {
        let (kind, announced) = (self.hash.kind(), self.hash.digits().to_string());
        let (doing, found, hint) = (self.doing(), found.to_string(), hint.to_string());
        Error::of(Failure::OtherHash { doing, kind, found, announced, hint })
    }

    pub(crate) fn changed(&self) -> Error {
        Error::of(Failure::Changed { doing: self.doing() })
    }
}

/// Checks that a revision is valid in requests and as a file name of the cache.
pub(crate) fn check_revision(address: &Address, revision: &str) -> Result<()> {
    if is_revision(revision) {
        return Ok(());
    }
    Err(Error::of(Failure::NoRevisionName { place: address.told(), revision: revision.to_string() }))
}

async fn resolve(
    http: &Http,
    address: &Address,
    revision: &str,
    name: &str,
    mut patience: Patience,
) -> Result<Resolved> {
    let doing = address.doing(name);
    let url = http.url(&address.resolve_path(revision, name));
    loop {
        match http.send_within(Method::HEAD, url.clone()).await {
            Ok(answer) => {
                return described(answer, revision).map_err(|problem| Error::of(Failure::BadAnswer { doing, problem }));
            }
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Refused(Refusal::NoRevision(None))) => {
                return Err(refused(&doing, Refusal::NoRevision(Some(revision.to_string()))));
            }
            Err(Trouble::Refused(refusal)) => return Err(refused(&doing, refusal)),
            Err(Trouble::Passing { problem, after }) => patience.wait(&problem, after, &doing).await?,
            Err(Trouble::Expired) => return Err(refused(&doing, Refusal::NoAccess)),
        }
    }
}

/// The properties of a file in the head of an answer, checked one by one; or the problem.
fn described(answer: Answer, revision: &str) -> std::result::Result<Resolved, String> {
    let headers = answer.response.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
    let shown = |text: &str| plain(text, 100);
    let length = || text(CONTENT_LENGTH.as_str()).filter(|_| answer.elsewhere.is_none());
    let (Some(etag), Some(size)) =
        (text("X-Linked-Etag").or_else(|| text("ETag")), text("X-Linked-Size").or_else(length))
    else {
        return Err("the answer names neither size nor version of the file".to_string());
    };
    let bytes = size.parse().ok().filter(|bytes| *bytes <= LARGEST_FILE);
    let bytes: u64 = bytes.ok_or_else(|| format!("\"{}\" is not the size of a file", shown(&size)))?;
    let etag = plain_etag(&etag);
    let hash = Hash::parse(&etag).ok_or_else(|| format!("\"{}\" is not a hash of a file", shown(&etag)))?;
    if matches!(hash, Hash::Git(_)) && (answer.elsewhere.is_some() || bytes > SMALL_FILE) {
        return Err(format!("\"{}\" is not the SHA-256 of a large file", shown(&etag)));
    }
    let commit = text("X-Repo-Commit").unwrap_or_else(|| revision.to_string());
    if !is_commit(&commit) || (is_commit(revision) && commit != revision) {
        return Err(format!("\"{}\" is not the commit that was asked for", shown(&commit)));
    }
    Ok(Resolved { commit, bytes, hash, url: answer.elsewhere.unwrap_or(answer.url) })
}

/// An ETag without quotes and without the weakness mark.
fn plain_etag(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let address = Address::new(RepositoryKind::Dataset, "lab/web-text").unwrap();
        assert_eq!(
            address.resolve_path("refs/pr/1", "a b/c.x"),
            "/datasets/lab/web-text/resolve/refs%2Fpr%2F1/a%20b/c.x"
        );
        assert!(Address::new(RepositoryKind::Model, "lab/../x").is_none());
        for name in ["gpt2", "bert-base-uncased", "roberta.large"] {
            assert!(Address::new(RepositoryKind::Model, name).is_some_and(|address| address.is_bare()), "{name}");
        }
        for none in ["model.safetensors", "corpus.jsonl", "", ".", "..", "a b", "~", "gpt2/"] {
            assert!(Address::new(RepositoryKind::Model, none).is_none(), "{none}");
        }
        assert!(Address::new(RepositoryKind::Model, &format!("lab/{}", "x".repeat(200))).is_none());
    }
}
