//! Texts that come out of a file one after another, whatever its format: how long they may be and how many, and what is said of
//! those that are none.

use std::io::{Error as IoError, ErrorKind};

use super::text_file::unreadable;
use crate::error::{Error, Result};

/// The column of texts where none is named, as datasets usually call it.
pub const DEFAULT_COLUMN: &str = "text";
/// Bytes of one piece of a text.
pub const SLICE: usize = 64 << 10;
/// Bytes of one document: larger ones are no documents but a missing separator.
pub const MAX_DOCUMENT: usize = 256 << 20;
/// Documents of a file that is shuffled: their places are kept, 16 bytes each.
pub const MAX_SHUFFLED: usize = 64 << 20;

/// Texts, made when they are asked for.
pub type Texts = Box<dyn Iterator<Item = Result<String>> + Send>;

pub fn not_text(path: &str) -> Error {
    unreadable(path, &IoError::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

pub fn too_many(path: &str) -> Error {
    let message = format!("reading {path}: more than {MAX_SHUFFLED} documents, too many to be shuffled");
    Error::unsupported(message).hint("cut the file into several, or store it as Parquet")
}
