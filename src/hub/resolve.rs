//! One file of a repository on the hub: its size, its hash, its commit, and where its bytes are at the moment.
//!
//! Large files are elsewhere: the hub answers with a redirect to a signed address that expires. What the file *is* stands
//! in the hub's own answer; the other host's ETag is another hash and only tells whether its answers belong together.

use std::sync::Arc;

use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, Url};
use tokio::sync::Mutex;

use super::http::{Http, Patience, Trouble};
use super::refusal::{self, Refusal};
use crate::error::{Error, Kind, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    Model,
    Dataset,
}

/// A repository on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub kind: RepositoryKind,
    /// `owner/name`
    pub id: String,
}

impl Address {
    /// `None` when `id` is not of the form `owner/name`.
    pub fn new(kind: RepositoryKind, id: &str) -> Option<Self> {
        let (owner, name) = id.split_once('/')?;
        (is_name(owner) && is_name(name)).then(|| Self { kind, id: id.to_string() })
    }

    pub fn owner_and_name(&self) -> (&str, &str) {
        self.id.split_once('/').expect("checked when made")
    }

    fn resolve_path(&self, revision: &str, file: &str) -> String {
        let prefix = if self.kind == RepositoryKind::Dataset { "/datasets" } else { "" };
        format!("{prefix}/{}/resolve/{}/{}", self.id, encoded(revision, ""), encoded(file, "/"))
    }

    /// The path of the API that tells about a revision.
    pub fn api_path(&self, revision: &str) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "datasets" } else { "models" };
        format!("/api/{kind}/{}/revision/{}", self.id, encoded(revision, ""))
    }

    /// The path of the API that lists a folder.
    pub fn tree_path(&self, commit: &str, folder: &str) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "datasets" } else { "models" };
        format!("/api/{kind}/{}/tree/{commit}/{}?recursive=true", self.id, encoded(folder, ""))
    }

    /// For messages.
    pub fn doing(&self, file: &str) -> String {
        format!("{}: fetching {file} from the hub", self.told())
    }

    pub fn told(&self) -> String {
        let kind = if self.kind == RepositoryKind::Dataset { "dataset" } else { "model" };
        format!("{kind} \"{}\"", self.id)
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Percent-encoded, but for letters, digits, `-._~` and `kept`.
pub fn encoded(text: &str, kept: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte);
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub struct RemoteFile {
    pub address: Arc<Address>,
    pub commit: String,
    pub name: String,
    pub bytes: u64,
    pub etag: String,
    /// Whether the hub keeps it as a large file.
    pub large: bool,
    place: Mutex<Place>,
}

#[derive(Clone)]
pub struct Place {
    pub url: Url,
    /// Counts how often the file was resolved.
    pub generation: u32,
    /// The ETag that this address has answered with.
    version: Option<String>,
}

struct Resolved {
    commit: Option<String>,
    bytes: u64,
    etag: String,
    large: bool,
    url: Url,
}

impl RemoteFile {
    /// Asks the hub for a file of a branch, tag or commit.
    pub async fn resolve(http: &Http, address: &Arc<Address>, revision: &str, name: &str) -> Result<Self> {
        let found = resolve(http, address, revision, name).await?;
        let place = Place { url: found.url, generation: 0, version: None };
        Ok(Self {
            address: address.clone(),
            commit: found.commit.unwrap_or_else(|| revision.to_string()),
            name: name.to_string(),
            bytes: found.bytes,
            etag: found.etag,
            large: found.large,
            place: Mutex::new(place),
        })
    }

    /// SHA-256 of the whole file as the hub announces it.
    pub fn announced_sha256(&self) -> Option<String> {
        (self.large && self.etag.len() == 64).then(|| self.etag.clone())
    }

    pub fn doing(&self) -> String {
        self.address.doing(&self.name)
    }

    pub async fn place(&self) -> Place {
        self.place.lock().await.clone()
    }

    /// Asks the hub again where the bytes are, unless somebody has since `generation`.
    ///
    /// # Errors
    /// `corrupt` when the file is another one by now.
    pub async fn resolve_again(&self, http: &Http, generation: u32) -> Result<()> {
        let mut place = self.place.lock().await;
        if place.generation != generation {
            return Ok(());
        }
        let found = resolve(http, &self.address, &self.commit, &self.name).await?;
        if found.etag != self.etag || found.bytes != self.bytes {
            return Err(self.changed());
        }
        *place = Place { url: found.url, generation: generation + 1, version: None };
        Ok(())
    }

    /// Checks that an answer belongs to the same version of the file as the answers before it from the same address.
    pub async fn check_version(&self, generation: u32, headers: &HeaderMap) -> Result<()> {
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

    pub fn changed(&self) -> Error {
        Error::corrupt(format!("{}: the file has changed on the hub while it was read", self.doing()))
            .hint("run again; give `revision` a commit to read the same files every time")
    }
}

async fn resolve(http: &Http, address: &Address, revision: &str, name: &str) -> Result<Resolved> {
    let doing = address.doing(name);
    let url = http.url(&address.resolve_path(revision, name));
    let mut patience = Patience::default();
    loop {
        match http.send_within(Method::HEAD, url.clone(), &doing).await {
            Ok(answer) => {
                let headers = answer.response.headers();
                let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
                let linked = text("X-Linked-Etag").map(|etag| plain_etag(&etag));
                let large = linked.is_some();
                let etag = linked.or_else(|| text("ETag").map(|etag| plain_etag(&etag)));
                let length = || text(CONTENT_LENGTH.as_str()).filter(|_| answer.elsewhere.is_none());
                let bytes = text("X-Linked-Size").or_else(length).and_then(|text| text.parse().ok());
                let (Some(etag), Some(bytes)) = (etag, bytes) else {
                    let problem = "the answer names neither size nor version of the file; is HF_ENDPOINT a hub?";
                    return Err(Error::new(Kind::Io, format!("{doing}: {problem}")));
                };
                let url = answer.elsewhere.unwrap_or(answer.url);
                return Ok(Resolved { commit: text("X-Repo-Commit"), bytes, etag, large, url });
            }
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Passing { problem, after }) => patience.wait(&problem, after, &doing).await?,
            Err(Trouble::Expired) => return Err(refusal::error(&doing, Refusal::NoAccess)),
        }
    }
}

/// An ETag without quotes and the mark of weakness.
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
        assert!(Address::new(RepositoryKind::Model, "llama").is_none());
    }
}
