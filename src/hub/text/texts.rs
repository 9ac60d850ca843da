//! Texts from a file, one after another, for all formats: limits of their length and number, and
//! messages about invalid ones.

use std::io::{Error as IoError, ErrorKind};

use super::failure::TextFailure;
use super::text_file::unreadable;
use crate::error::{Error, Result};

/// Bytes of one piece of a text.
pub(crate) const SLICE: usize = 64 << 10;
/// The largest document in bytes. A larger one is the sign of a missing separator.
pub(crate) const MAX_DOCUMENT: usize = 256 << 20;
/// The largest number of documents in a shuffled file. Their positions take 16 bytes each.
pub(crate) const MAX_SHUFFLED: usize = 64 << 20;

/// Texts that are made on demand.
pub(crate) type Texts = Box<dyn Iterator<Item = Result<String>> + Send>;

pub(crate) fn not_text(path: &str) -> Error {
    unreadable(path, &IoError::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

pub(crate) fn too_many(path: &str) -> Error {
    Error::of(TextFailure::TooManyToShuffle { name: path.to_string(), most: MAX_SHUFFLED })
}
