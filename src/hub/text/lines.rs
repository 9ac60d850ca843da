//! Text files as a stream: pieces of one text, or the parts between separators, such as lines. Only
//! one of them is in memory.

use std::io::{BufRead, BufReader, Read};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::failure::TextFailure;
use super::json_values::{Place, Value};
use super::text_file::{Bytes, ReadRange, unreadable};
use super::texts::{MAX_DOCUMENT, MAX_SHUFFLED, SLICE, Texts, not_text, too_many};
use crate::error::{Error, Result};
use crate::progress::interrupt_requested;

/// The consecutive pieces of one text. A blank text has none.
pub(crate) struct Slices {
    path: String,
    reader: BufReader<Bytes>,
    /// The first bytes of a character that continues in the next piece.
    rest: Vec<u8>,
    /// True if there was only whitespace so far, which belongs to a text only if more follows.
    blank: bool,
}

impl Slices {
    pub(crate) fn new(path: &str, text: Bytes) -> Self {
        let reader = BufReader::with_capacity(SLICE, text);
        Self { path: path.to_string(), reader, rest: Vec::new(), blank: true }
    }

    fn piece(&mut self) -> Result<Option<String>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let read = self.reader.by_ref().take(SLICE as u64).read_to_end(&mut bytes);
        if read.map_err(|e| unreadable(&self.path, &e))? == 0 {
            return if bytes.is_empty() { Ok(None) } else { Err(not_text(&self.path)) };
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            if error.error_len().is_some() {
                return Err(not_text(&self.path));
            }
            self.rest = bytes.split_off(error.valid_up_to());
        }
        String::from_utf8(bytes).map(Some).map_err(|_| not_text(&self.path))
    }

    fn text(&mut self) -> Result<Option<String>> {
        let Some(mut text) = self.piece()? else { return Ok(None) };
        // The start of the last piece. Earlier ones are blank.
        let mut last = 0;
        while self.blank {
            if interrupt_requested() {
                return Err(Error::interrupted());
            }
            if !text[last..].trim().is_empty() {
                self.blank = false;
            } else if text.len() > MAX_DOCUMENT {
                return Err(too_long(&self.path));
            } else {
                last = text.len();
                match self.piece()? {
                    Some(more) => text.push_str(&more),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(text))
    }
}

impl Iterator for Slices {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text().transpose()
    }
}

fn too_long(path: &str) -> Error {
    Error::of(TextFailure::LongDocument { name: path.to_string(), most: MAX_DOCUMENT })
}

/// The position of a document in its text.
#[derive(Clone, Copy)]
pub(crate) struct Spot {
    offset: u64,
    bytes: u32,
    /// Number of documents before it, including blank ones.
    index: u32,
}

/// The bytes between separators, one after another.
struct Split {
    path: String,
    reader: BufReader<Bytes>,
    separator: Vec<u8>,
    offset: u64,
    index: u32,
    ended: bool,
}

impl Split {
    fn new(path: &str, text: Bytes, separator: &str) -> Self {
        let (path, separator) = (path.to_string(), separator.as_bytes().to_vec());
        let reader = BufReader::with_capacity(SLICE, text);
        Self { reader, path, separator, offset: 0, index: 0, ended: false }
    }

    fn document(&mut self) -> Result<Option<(Spot, Vec<u8>)>> {
        let Some(last) = self.separator.last().copied().filter(|_| !self.ended) else { return Ok(None) };
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        let mut bytes = Vec::new();
        while !bytes.ends_with(&self.separator) {
            let most = (MAX_DOCUMENT + self.separator.len() - bytes.len()) as u64;
            let read = self.reader.by_ref().take(most).read_until(last, &mut bytes);
            let read = read.map_err(|e| unreadable(&self.path, &e))?;
            if read == 0 && most > 0 {
                self.ended = true;
                break;
            }
            if read as u64 == most && !bytes.ends_with(&self.separator) {
                return Err(too_long(&self.path));
            }
        }
        let whole = bytes.len() as u64;
        if !self.ended {
            bytes.truncate(bytes.len() - self.separator.len());
        }
        let spot = Spot { offset: self.offset, bytes: bytes.len() as u32, index: self.index };
        self.offset += whole;
        self.index = self.index.saturating_add(1);
        Ok(Some((spot, bytes)))
    }
}

impl Iterator for Split {
    type Item = Result<(Spot, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.document().transpose()
    }
}

/// The parts between separators, with their positions.
pub(crate) type Parts = Box<dyn Iterator<Item = Result<(Spot, Vec<u8>)>> + Send>;

/// A random order, and a reader of parts from the uncompressed file, in which the text begins at a
/// byte.
pub(crate) struct Shuffled {
    pub random: ChaCha8Rng,
    pub read: ReadRange,
    pub begin: u64,
}

/// The parts between `separator`s. Blank parts are left out if `dense`.
pub(crate) fn parts(
    path: &str,
    text: Bytes,
    separator: &str,
    dense: bool,
    shuffled: Option<Shuffled>,
) -> Result<Parts> {
    let blank = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.trim().is_empty());
    let kept = move |item: &Result<(Spot, Vec<u8>)>| !(dense && item.as_ref().is_ok_and(|(_, bytes)| blank(bytes)));
    let parts = Split::new(path, text, separator).filter(kept);
    let Some(Shuffled { mut random, read, begin }) = shuffled else { return Ok(Box::new(parts)) };
    let mut spots = Vec::new();
    for part in parts {
        if spots.len() == MAX_SHUFFLED {
            return Err(too_many(path));
        }
        spots.push(part?.0);
    }
    spots.shuffle(&mut random);
    Ok(Box::new(spots.into_iter().map(move |spot| {
        let from = begin + spot.offset;
        read(from..from + u64::from(spot.bytes)).map(|bytes| (spot, bytes))
    })))
}

/// The documents between separators.
pub(crate) fn between(path: &str, parts: Parts) -> Texts {
    let name = path.to_string();
    let text = move |bytes| String::from_utf8(bytes).map_err(|_| not_text(&name));
    Box::new(parts.map(move |part| text(part?.1).map(|text| text.trim().to_string())))
}

/// The lines of JSON Lines.
pub(crate) fn values(parts: Parts) -> impl Iterator<Item = Result<Value>> + Send {
    parts.map(|part| {
        let (spot, bytes) = part?;
        Ok(Value { place: Place::Line(u64::from(spot.index) + 1), bytes, alone: false })
    })
}
