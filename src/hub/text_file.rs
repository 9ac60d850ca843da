//! A file of texts as bytes, on this machine or on the hub: ranges of it, or all of it as a stream of which no more is fetched
//! than is read.

use std::io::{Error as IoError, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::outside;

/// Bytes of the first piece of a stream: what tells the format.
const FIRST_PIECE: u64 = 64 << 10;
/// By this pieces grow, so that a beginning is quick to fetch and a whole file is not asked for in too many requests.
const GROWTH: u64 = 4;
/// Bytes of a later piece from the hub.
const LARGEST_PIECE: u64 = 4 << 20;

/// Brings bytes of the file.
pub type ReadRange = Arc<dyn Fn(Range<u64>) -> Result<Vec<u8>> + Send + Sync>;
/// Bytes of a text, one after another.
pub type Bytes = Box<dyn Read + Send>;

#[derive(Clone)]
pub struct TextFile {
    /// As messages and results call it.
    pub name: String,
    pub bytes: u64,
    pub read: ReadRange,
    /// Bytes of a piece of the stream at most.
    largest_piece: u64,
    /// Each range is a question to the hub.
    pub remote: bool,
}

impl TextFile {
    /// A file of this machine, as long as it is now: one that grows meanwhile has an end, too.
    pub fn here(path: &str) -> Result<Self> {
        let file = outside::open(Path::new(path)).map_err(|e| unreadable(path, &e))?;
        let bytes = file.metadata().map_err(|e| unreadable(path, &e))?.len();
        let name = path.to_string();
        let read = move |range: Range<u64>| {
            let mut data = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut data, range.start).map_err(|e| unreadable(&name, &e))?;
            Ok(data)
        };
        let read = Arc::new(read);
        Ok(Self { name: path.to_string(), bytes, read, largest_piece: FIRST_PIECE, remote: false })
    }

    /// A file of the hub.
    pub fn remote(name: String, bytes: u64, read: ReadRange) -> Self {
        Self { name, bytes, read, largest_piece: LARGEST_PIECE, remote: true }
    }

    /// All bytes from the first one on.
    pub fn stream(&self) -> Stream {
        Stream { file: self.clone(), at: 0, piece: FIRST_PIECE, data: Vec::new(), used: 0 }
    }
}

/// The bytes of a file in their order. Pieces begin and end at the same places every time, so that each is cached once.
pub struct Stream {
    file: TextFile,
    /// Where the next piece begins.
    at: u64,
    /// Bytes of the next piece.
    piece: u64,
    data: Vec<u8>,
    used: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.used == self.data.len() && self.at < self.file.bytes {
            let end = self.file.bytes.min(self.at + self.piece);
            self.data = (self.file.read)(self.at..end).map_err(IoError::other)?;
            self.used = 0;
            self.at = end;
            self.piece = (GROWTH * self.piece).min(self.file.largest_piece);
        }
        let count = (&self.data[self.used..]).read(buffer)?;
        self.used += count;
        Ok(count)
    }
}

/// The error of a file that could not be read; one of ours that came through a reader stays what it is.
pub fn unreadable(path: &str, error: &std::io::Error) -> Error {
    if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return own.clone();
    }
    let otherwise = match error.kind() {
        std::io::ErrorKind::InvalidData => {
            "text must be UTF-8; convert the file first, such as: iconv -f LATIN1 -t UTF-8 FILE > NEW"
        }
        _ => "paths given to load_tokens start from the folder the program runs in",
    };
    outside::unreadable(Path::new(path), error, otherwise)
}
