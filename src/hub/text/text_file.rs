//! A text file as bytes, on this machine or on the hub: by ranges, or as a stream that fetches only
//! what is read.

use std::io::{Error as IoError, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::outside;

/// Size in bytes of the first piece of a stream, which shows the format.
const FIRST_PIECE: u64 = 64 << 10;
/// Growth factor of the pieces: the beginning is fetched quickly, and a whole file needs few
/// requests.
const GROWTH: u64 = 4;
/// The largest piece from the hub in bytes.
const LARGEST_PIECE: u64 = 4 << 20;

/// Reads a byte range of the file.
pub(crate) type ReadRange = Arc<dyn Fn(Range<u64>) -> Result<Vec<u8>> + Send + Sync>;
/// Bytes of a text, one after another.
pub(crate) type Bytes = Box<dyn Read + Send>;

#[derive(Clone)]
pub(crate) struct TextFile {
    /// The name in messages and results.
    pub name: String,
    pub bytes: u64,
    pub read: ReadRange,
    /// The largest piece of the stream in bytes.
    largest_piece: u64,
    /// True if each range is a query to the hub.
    pub remote: bool,
}

impl TextFile {
    /// A file of this machine with its current length: a growing file ends there.
    pub(crate) fn here(path: &str) -> Result<Self> {
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
    pub(crate) fn remote(name: String, bytes: u64, read: ReadRange) -> Self {
        Self { name, bytes, read, largest_piece: LARGEST_PIECE, remote: true }
    }

    /// All bytes from the first one on.
    pub(crate) fn stream(&self) -> Stream {
        Stream { file: self.clone(), at: 0, piece: FIRST_PIECE, data: Vec::new(), used: 0 }
    }
}

/// The bytes of a file in order. Pieces have the same boundaries every time, so that each is cached
/// once.
pub(crate) struct Stream {
    file: TextFile,
    /// The start of the next piece.
    at: u64,
    /// Size of the next piece.
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

/// The error of a file that could not be read. One of ours that has passed through a reader is
/// kept.
pub(crate) fn unreadable(path: &str, error: &std::io::Error) -> Error {
    if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return own.clone();
    }
    let otherwise = match error.kind() {
        std::io::ErrorKind::InvalidData => {
            "text must be UTF-8; find out its encoding (`file -i FILE` guesses it) and convert it first: iconv -f ENCODING \
             -t UTF-8 FILE > NEW, where ENCODING is WINDOWS-1252, GB18030, SHIFT_JIS, EUC-KR, UTF-16LE or another; read \
             some of NEW, because LATIN1 and its like take any bytes and make nonsense of those of others"
        }
        _ => "paths given to load_tokens start from the folder the program runs in",
    };
    outside::unreadable(Path::new(path), error, otherwise)
}
