//! A source of the bytes of a model's files: a folder of this machine, or the hub.
//!
//! Readers announce their reads (`Ahead`). A folder ignores that. Over a network it keeps the link
//! busy during computation.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::Dtype;

use super::shards::nothing;
use crate::error::{Error, Result};
use crate::hub::failure::Failure;

/// The largest size in bytes of a file that is read whole: a configuration, an index, a tokenizer.
pub(crate) const SMALL_FILE: u64 = 64 << 20;

/// The error of a larger file; `what` is "reading FILE" or similar.
pub(crate) fn too_large(what: &str, bytes: u64) -> Error {
    Error::of(Failure::TooLarge { what: what.to_string(), bytes, most: SMALL_FILE })
}

/// A weight file of a model.
pub struct SourceFile {
    pub name: String,
    pub bytes: u64,
    /// SHA-256 of the whole file as the hub announces it, 64 hexadecimal digits.
    pub announced_sha256: Option<String>,
}

/// A tensor of a source that itself knows its tensors.
pub struct SourceTensor {
    /// In the whole model.
    pub name: String,
    /// The index of its weight file.
    pub file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub begin: u64,
    pub bytes: u64,
}

pub struct SourceTensors {
    pub tensors: Vec<SourceTensor>,
    /// Bytes at the beginning of each file that describe them.
    pub headers: Vec<u64>,
}

/// Bytes `range` of the weight file with this index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    pub file: usize,
    pub range: Range<u64>,
}

/// Identifies ranges that were announced together.
pub type Tag = u64;

/// Ranges that will be read soon, each byte once.
pub struct Announcement {
    /// They are read in ascending order of this number.
    pub order: u64,
    /// Gaps up to this many bytes between ranges may be fetched as well.
    pub max_gap: u64,
    pub ranges: Vec<FileRange>,
}

pub trait ByteSource: Send + Sync {
    /// The folder, or `hf://owner/name@commit`; of GGUF files the first, in that folder or behind
    /// that address.
    fn place(&self) -> String;

    /// Where one of its files is, for messages.
    fn place_of(&self, file: &str) -> String {
        format!("{}/{file}", self.place())
    }

    /// The contents of a small file; None if it does not exist.
    ///
    /// # Errors
    /// `corrupt` if it is larger than `SMALL_FILE` or not what the hub announced, `not_found` for a
    /// Git LFS pointer.
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The safetensors or PyTorch files of the model, sorted by name; None if there are no weights.
    ///
    /// # Errors
    /// `not_found` if one of them is missing, `corrupt` for a damaged index, `unsupported` for
    /// weights in another format, or if there is only an adapter for another model.
    fn weights(&self) -> Result<Option<&[SourceFile]>>;

    /// As `weights`.
    ///
    /// # Errors
    /// As `weights`, and `not_found` if there are none.
    fn files(&self) -> Result<&[SourceFile]> {
        self.weights()?.ok_or_else(|| nothing(&self.place(), &self.models_below()))
    }

    /// The tensors, if the source itself knows them; `None` if the files have to be asked.
    ///
    /// # Errors
    /// `corrupt` if the file is damaged, `unsupported` if it has something that is not read.
    fn tensors(&self) -> Result<Option<&SourceTensors>> {
        Ok(None)
    }

    /// Names of all files other than weights, if they can be listed.
    fn listing(&self) -> Option<Vec<String>>;

    /// Folders in it that hold models of their own, as trainers and caches leave them, where they
    /// are known.
    fn models_below(&self) -> Vec<String> {
        Vec::new()
    }

    /// A revision of the same model that has its weights as safetensors, where somebody knows of
    /// one.
    fn converted(&self) -> Option<String> {
        None
    }

    /// A note for the user about the choice of `weights`.
    fn note(&self) -> Option<&str>;

    /// Fills `buffer` from byte `offset` of a file.
    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Announces ranges that will be read soon.
    fn expect(&self, tag: Tag, announcement: Announcement);

    /// Discards announcements with these tags that have not been read.
    fn forget(&self, tags: &[Tag]);
}

/// The announcements of one reader. Unread ones are discarded when this is dropped.
pub struct Ahead {
    source: Arc<dyn ByteSource>,
    tags: Vec<Tag>,
}

impl Ahead {
    pub fn new(source: Arc<dyn ByteSource>) -> Self {
        Self { source, tags: Vec::new() }
    }

    pub fn expect(&mut self, announcement: Announcement) -> Tag {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tag = NEXT.fetch_add(1, Ordering::Relaxed);
        self.source.expect(tag, announcement);
        self.tags.push(tag);
        tag
    }

    pub fn forget(&self, tag: Tag) {
        self.source.forget(&[tag]);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.source.forget(&self.tags);
    }
}
