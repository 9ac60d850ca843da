//! From a user's input (`a/folder`, `a/file.gguf`, `owner/name`, `owner/name:Q8_0` or `gpt2`) to
//! the bytes of a model's files: from a folder, from the Hugging Face cache, or from the hub by
//! ranges; and to the documents of a text file or of a dataset on the hub.
//!
//! Token, endpoint and cache are those of the Hugging Face tools (`HF_TOKEN`, `HF_ENDPOINT`,
//! `HF_HOME`, `HF_HUB_OFFLINE`).

mod cache;
mod environment;
mod failure;
mod file_name;
mod foreign;
mod hash;
mod http;
mod names;
mod spelling;
mod text;
mod weights;

use std::path::Path;
use std::sync::Arc;

pub use environment::{own_token, use_token};
pub use failure::{Failure, REFUSED};
pub use foreign::{TELLING, known_as, no_pytorch, no_safetensors, pointer};
pub use text::documents::Documents;
pub use weights::shards::{Layout, PYTORCH, SAFETENSORS, is_pytorch};
pub use weights::source::{Ahead, Announcement, ByteSource, FileRange, SourceFile, SourceTensor, SourceTensors, Tag};
pub use weights::weight_formats::{ADAPTER, without_config};

use crate::error::{Error, Kind, Result};
use crate::home;
use crate::outside;
use crate::plain::plain;
use crate::progress::Progress;
use cache::repository;
use http::ranges::Limits;
use http::resolve::{Address, MODEL_IDS, RepositoryKind};
use text::text_file;
use weights::folder::Folder;
use weights::gguf::remote::Named;
use weights::shards::LAYOUTS;
use weights::streamed::Streamed;
use weights::{folders, gguf, gguf_files, weight_formats};

/// The most bytes of a streamed model that are in memory before they are read.
pub const STREAM_BYTES: u64 = Limits::STREAM.budget();

/// A model's files.
pub struct Opened {
    pub source: Arc<dyn ByteSource>,
    /// The hub's commit; None for a folder.
    pub revision: Option<String>,
}

/// Whether a model's weights may be written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything is downloaded into the cache first.
    Download,
    /// Ranges of the files are read from the hub when they are needed, and nothing is written.
    Stream,
}

/// Opens the files of a model. An existing folder has precedence over a hub id, and `~` is the
/// user's home. The cache is used without a network in offline mode (`HF_HUB_OFFLINE`), and if the
/// hub does not answer and the whole model is cached.
pub fn open(id: &str, revision: Option<&str>, access: Access, progress: &dyn Progress) -> Result<Opened> {
    open_checked(id, revision, access, progress, &|_| Ok(()))
}

/// As `open`. Before a large download, `check` is called with the files on the hub, and its error
/// prevents the download.
pub fn open_checked(
    id: &str,
    revision: Option<&str>,
    access: Access,
    progress: &dyn Progress,
    check: &dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
) -> Result<Opened> {
    let folder = home::expanded(id);
    if folder.is_dir() || gguf::is_gguf(&folder) {
        if let Some(revision) = revision {
            return Err(Error::of(Failure::RevisionOfFolder { id: plain(id, 200), revision: plain(revision, 200) }));
        }
        return Ok(Opened { source: here(&folder)?, revision: None });
    }
    if folder.is_file() {
        let head = outside::beginning(&folder, TELLING).unwrap_or_default();
        return Err(weight_formats::file_for_folder(&plain(id, 200), &head));
    }
    let of_name = |named: Named| {
        let (model, commit) = match access == Access::Stream && !environment::offline() {
            true => named.stream(revision)?,
            false => named.download(revision, progress, check)?,
        };
        Ok(Opened { source: Arc::new(model.noting(named.note())), revision: Some(commit) })
    };
    if let Some(named) = Named::parse(id) {
        return of_name(named).map_err(|error| folders::told(id, error));
    }
    let meant = spelling::meant(RepositoryKind::Model, id);
    let address = Address::new(RepositoryKind::Model, id).filter(|address| !(address.is_bare() && folder.exists()));
    let address = address.filter(|_| meant.is_none()).ok_or_else(|| {
        let no_model = |hint: String| Error::of(Failure::NoModel { id: id.to_string(), hint });
        match meant {
            Some(meant) => no_model(meant.told()),
            None => folders::told(id, no_model(MODEL_IDS.to_string())),
        }
    })?;
    let address = Arc::new(address);
    let opened = of_hub(&address, revision, access, progress, check);
    // Without weights that are read, the repository may have a single GGUF file.
    let problem = match &opened {
        Ok(opened) => opened.source.weights().err(),
        Err(error) => Some(error.clone()),
    };
    let opened = match problem.and_then(|problem| Named::only(&address, revision, &problem)) {
        Some(named) => of_name(named),
        None => opened,
    };
    opened.map_err(|error| folders::told(id, error))
}

/// As `open_checked`, for a model on the hub.
fn of_hub(
    address: &Arc<Address>,
    revision: Option<&str>,
    access: Access,
    progress: &dyn Progress,
    check: &dyn Fn(Arc<dyn ByteSource>) -> Result<()>,
) -> Result<Opened> {
    if access == Access::Stream && !environment::offline() {
        let whole = repository::whole(address, revision)?;
        return match (Streamed::open(address, revision, whole.is_some()), whole) {
            (Err(error), Some(snapshot)) if error.kind == Kind::Io => {
                repository::tell(address, &snapshot, &repository::problem(&error, address), progress);
                Ok(Opened { source: Arc::new(Folder::new(&snapshot.folder())), revision: Some(snapshot.commit) })
            }
            (model, _) => {
                let model = model?;
                let revision = Some(model.commit.clone());
                Ok(Opened { source: Arc::new(model), revision })
            }
        };
    }
    let located = repository::locate(address, revision, progress, check)?;
    let folder = Folder::new(&located.folder).noting(located.note);
    Ok(Opened { source: Arc::new(folder), revision: Some(located.revision) })
}

/// Length in bytes of a text file of this machine.
///
/// # Errors
/// `not_found`, or `io` if it is not a file or cannot be read.
pub fn text_bytes(path: &str) -> Result<u64> {
    text_file::TextFile::here(path).map(|file| file.bytes)
}

/// The files of a model at the place that an opened source has returned.
pub fn at(place: &str) -> Result<Arc<dyn ByteSource>> {
    match (Streamed::at(place), gguf::remote::at(place)) {
        (Some(model), _) => Ok(Arc::new(model?)),
        (None, Some(model)) => Ok(Arc::new(model?)),
        (None, None) => here(Path::new(place)),
    }
}

/// The files of a model in a folder of this machine, or in a GGUF file.
///
/// # Errors
/// `not_found` if a folder has several models in GGUF files, and no other weights.
fn here(path: &Path) -> Result<Arc<dyn ByteSource>> {
    let others = || LAYOUTS.iter().any(|layout| [layout.single, layout.index].iter().any(|name| is_there(path, name)));
    if gguf::is_gguf(path) {
        return Ok(Arc::new(gguf::Gguf::new(path)));
    }
    let only = if others() { None } else { gguf::in_folder(path)? };
    Ok(match only {
        Some(name) => {
            let note = gguf_files::only(&path.display().to_string(), &name);
            Arc::new(gguf::Gguf::new(&path.join(name)).noting(Some(note)))
        }
        None => Arc::new(Folder::new(path)),
    })
}

fn is_there(folder: &Path, name: &str) -> bool {
    folder.join(name).symlink_metadata().is_ok()
}
