//! Bytes of a model's files, wherever they are: a folder of this machine, or the hub.
//!
//! Readers say in advance what they will read (`Ahead`). A folder has no use for it; over a network it is what keeps the
//! link full while others compute.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::Dtype;

use super::shards::nothing;
use crate::error::{Error, Result};

/// Bytes of a file that is read whole: a configuration, an index, a tokenizer.
pub const SMALL_FILE: u64 = 64 << 20;

/// The error of a file that is larger; `what` is "reading FILE" or the like.
pub fn too_large(what: &str, bytes: u64) -> Error {
    let message = format!("{what}: {bytes} bytes, more than the {} MB that such a file may have", SMALL_FILE >> 20);
    Error::corrupt(message).hint("is it what its name says? weights belong into safetensors files")
}

/// A weight file of a model.
pub struct SourceFile {
    pub name: String,
    pub bytes: u64,
    /// SHA-256 that the hub announces for the whole file, 64 hexadecimal digits.
    pub announced_sha256: Option<String>,
}

/// A tensor of a source that says itself which there are, in its only file.
pub struct SourceTensor {
    /// In the whole model.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub begin: u64,
    pub bytes: u64,
}

pub struct SourceTensors {
    pub tensors: Vec<SourceTensor>,
    /// Bytes at the beginning of the file that describe them.
    pub header: u64,
}

/// Bytes `range` of the weight file with this index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    pub file: usize,
    pub range: Range<u64>,
}

/// Names ranges that were announced together.
pub type Tag = u64;

/// What will be read soon, each byte once.
pub struct Announcement {
    /// Read after what has a smaller number, before what has a larger one.
    pub order: u64,
    /// Gaps between ranges, up to so many bytes, may be fetched along.
    pub max_gap: u64,
    pub ranges: Vec<FileRange>,
}

pub trait ByteSource: Send + Sync {
    /// A folder, or `hf://owner/name@commit`.
    fn place(&self) -> String;

    /// A small file beside the weights, whole; `None` where there is none.
    ///
    /// # Errors
    /// `corrupt` where it is larger than `SMALL_FILE` or not what the hub announced; `not_found` where a Git LFS pointer stands
    /// in its place.
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The safetensors or PyTorch files that hold the model, sorted by name; `None` where nothing here holds weights.
    ///
    /// # Errors
    /// `not_found` where one of them is missing, `corrupt` where the index is damaged, `unsupported` where the weights are in
    /// another format, or here is but an adapter for another model.
    fn weights(&self) -> Result<Option<&[SourceFile]>>;

    /// As `weights`.
    ///
    /// # Errors
    /// Those, and `not_found` where there are no weights.
    fn files(&self) -> Result<&[SourceFile]> {
        self.weights()?.ok_or_else(|| nothing(&self.place()))
    }

    /// The tensors, where the source says itself which there are; none where its files are to be asked.
    ///
    /// # Errors
    /// `corrupt` where the file is damaged, `unsupported` where it holds what is not read.
    fn tensors(&self) -> Result<Option<&SourceTensors>> {
        Ok(None)
    }

    /// Names of all files beside the weights, where they can be listed.
    fn listing(&self) -> Option<Vec<String>>;

    /// A revision of the same model that has its weights as safetensors, where somebody knows of one.
    fn converted(&self) -> Option<String> {
        None
    }

    /// What the user should know of how `weights` were chosen.
    fn note(&self) -> Option<&str>;

    /// Fills `buffer` from byte `offset` of a file.
    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// These ranges will be read soon.
    fn expect(&self, tag: Tag, announcement: Announcement);

    /// What was announced under these tags and has not been read will not be read.
    fn forget(&self, tags: &[Tag]);
}

/// What one reader has announced; what it has not read is forgotten when this is dropped.
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
