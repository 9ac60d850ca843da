//! From what a user writes (`a/folder` or `owner/name`) to the bytes of a model's files: from a folder, from the Hugging Face
//! cache, or straight from the hub by ranges; and to the documents of a text file or of a dataset on the hub.
//!
//! Token, endpoint and cache are those of the Hugging Face tools (`HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE`).

mod body;
mod cache;
mod dataset;
#[cfg(target_os = "linux")]
mod direct;
mod documents;
mod download;
mod environment;
mod fetch;
mod folder;
mod hash;
mod http;
mod lines;
mod names;
mod parquet_checks;
mod parquet_text;
mod ranges;
mod refusal;
mod repository;
mod resolve;
mod shards;
mod source;
mod streamed;

use std::path::Path;
use std::sync::Arc;

pub use documents::{Documents, Format};
pub use environment::{own_token, use_token};
pub use source::{Ahead, Announcement, ByteSource, FileRange, SourceFile, Tag};

use crate::error::{Error, Result};
use crate::plain::plain;
use crate::progress::Progress;
use folder::Folder;
use ranges::Limits;
use resolve::{Address, RepositoryKind};
use streamed::Streamed;

/// Bytes that may be in memory of a streamed model before they are read.
pub const STREAM_BYTES: u64 = Limits::STREAM.budget();

/// A model's files.
pub struct Opened {
    pub source: Arc<dyn ByteSource>,
    /// The hub's commit; `None` for a folder.
    pub revision: Option<String>,
}

/// Whether a model's weights may be put on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything is downloaded into the cache first.
    Download,
    /// Ranges of the files are read from the hub when they are needed; nothing is written.
    Stream,
}

/// The files of a model. A folder that exists wins over a hub id; without a network (`HF_HUB_OFFLINE`) the cache is used.
pub fn open(id: &str, revision: Option<&str>, access: Access, progress: &dyn Progress) -> Result<Opened> {
    if Path::new(id).is_dir() {
        return Ok(Opened { source: Arc::new(Folder::new(Path::new(id))), revision: None });
    }
    let address = Address::new(RepositoryKind::Model, id).ok_or_else(|| {
        Error::not_found(format!("model \"{}\": no such folder, and not a hub id", plain(id, 200))).hint(
            "give a folder with config.json and safetensors files, or a hub id such as \"allenai/OLMoE-1B-7B-0125\"",
        )
    })?;
    let address = Arc::new(address);
    if access == Access::Stream && !environment::offline() {
        let model = Streamed::open(&address, revision)?;
        let revision = Some(model.commit.clone());
        return Ok(Opened { source: Arc::new(model), revision });
    }
    let located = repository::locate(&address, revision, progress)?;
    Ok(Opened { source: Arc::new(Folder::new(&located.folder)), revision: Some(located.revision) })
}

/// The files of a model at the place that an opened source named.
pub fn at(place: &str) -> Result<Arc<dyn ByteSource>> {
    match Streamed::at(place) {
        Some(model) => Ok(Arc::new(model?)),
        None => Ok(Arc::new(Folder::new(Path::new(place)))),
    }
}
