//! Text files as a stream: pieces of one text, or the documents between separators, of which JSON Lines are a kind. No more
//! of a file is in memory than one of them.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Error as IoError, ErrorKind, Read, Take};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::documents::{Texts, unreadable};
use crate::error::{Error, Result};
use crate::outside::{self, shown};
use crate::progress::interrupt_requested;

/// Bytes of one piece of a text.
const SLICE: usize = 64 << 10;
/// Bytes of one document: larger ones are no documents but a missing separator.
const MAX_DOCUMENT: usize = 256 << 20;
/// Documents of a file that is shuffled: their places are kept, 16 bytes each.
const MAX_SHUFFLED: usize = 64 << 20;

/// A file as long as it was when it was opened: one that grows meanwhile has an end, too.
fn open(path: &str) -> Result<BufReader<Take<File>>> {
    let length = |file: &File| file.metadata().map(|metadata| metadata.len());
    let file = outside::open(Path::new(path)).and_then(|file| length(&file).map(|length| file.take(length)));
    file.map(|file| BufReader::with_capacity(SLICE, file)).map_err(|e| unreadable(path, &e))
}

fn not_text(path: &str) -> Error {
    unreadable(path, &IoError::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// The consecutive pieces of one text; none of one that is blank.
pub struct Slices {
    path: String,
    reader: BufReader<Take<File>>,
    /// The beginning of a character whose other bytes come with the next piece.
    rest: Vec<u8>,
    /// Nothing but blanks so far: they belong to a text only if more follows.
    blank: bool,
}

impl Slices {
    pub fn open(path: &str) -> Result<Self> {
        Ok(Self { path: path.to_string(), reader: open(path)?, rest: Vec::new(), blank: true })
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
        let mut text = self.piece()?;
        while self.blank
            && let Some(blank) = &mut text
        {
            if !blank.trim().is_empty() {
                self.blank = false;
            } else if blank.len() > MAX_DOCUMENT {
                return Err(too_long(&self.path));
            } else {
                match self.piece()? {
                    Some(more) => blank.push_str(&more),
                    None => return Ok(None),
                }
            }
        }
        Ok(text)
    }
}

impl Iterator for Slices {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text().transpose()
    }
}

fn too_long(path: &str) -> Error {
    Error::corrupt(format!("reading {path}: a document of more than {MAX_DOCUMENT} bytes"))
        .hint("is the separator the right one? JSON Lines have one object per line")
}

/// Where a document is in its file.
#[derive(Clone, Copy)]
struct Spot {
    offset: u64,
    bytes: u32,
    /// Documents before it, blank ones too.
    index: u32,
}

/// The bytes between separators, one after another.
struct Split {
    path: String,
    reader: BufReader<Take<File>>,
    separator: Vec<u8>,
    offset: u64,
    index: u32,
    ended: bool,
}

impl Split {
    fn open(path: &str, separator: &str) -> Result<Self> {
        let (path, separator) = (path.to_string(), separator.as_bytes().to_vec());
        Ok(Self { reader: open(&path)?, path, separator, offset: 0, index: 0, ended: false })
    }

    fn document(&mut self) -> Result<Option<(Spot, Vec<u8>)>> {
        let Some(last) = self.separator.last().copied().filter(|_| !self.ended) else { return Ok(None) };
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

/// The documents that `make` makes of what stands between separators; blank ones are left out if `dense`.
fn split(
    path: &str,
    separator: &str,
    dense: bool,
    random: Option<ChaCha8Rng>,
    make: impl Fn(Spot, String) -> Result<String> + Send + 'static,
) -> Result<Texts> {
    let blank = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.trim().is_empty());
    let kept = move |item: &Result<(Spot, Vec<u8>)>| !(dense && item.as_ref().is_ok_and(|(_, bytes)| blank(bytes)));
    let documents = Split::open(path, separator)?.filter(kept);
    let name = path.to_string();
    let text = move |spot, bytes| String::from_utf8(bytes).map_err(|_| not_text(&name)).and_then(|t| make(spot, t));
    let Some(mut random) = random else {
        return Ok(Box::new(documents.map(move |item| item.and_then(|(spot, bytes)| text(spot, bytes)))));
    };
    let mut spots = Vec::new();
    for item in documents {
        if spots.len() == MAX_SHUFFLED {
            let message = format!("reading {path}: more than {MAX_SHUFFLED} documents, too many to be shuffled");
            return Err(Error::unsupported(message).hint("cut the file into several, or store it as Parquet"));
        }
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        spots.push(item?.0);
    }
    spots.shuffle(&mut random);
    let file = outside::open(Path::new(path)).map_err(|e| unreadable(path, &e))?;
    let name = path.to_string();
    Ok(Box::new(spots.into_iter().map(move |spot| {
        let mut bytes = vec![0; spot.bytes as usize];
        file.read_exact_at(&mut bytes, spot.offset).map_err(|e| unreadable(&name, &e))?;
        text(spot, bytes)
    })))
}

/// The documents of a text file between `separator`s.
pub fn between(path: &str, separator: &str, random: Option<ChaCha8Rng>) -> Result<Texts> {
    split(path, separator, false, random, |_, text| Ok(text.trim().to_string()))
}

/// One JSON object per line, with the document under `column`.
pub fn json(path: &str, column: &str, random: Option<ChaCha8Rng>) -> Result<Texts> {
    let (name, column) = (path.to_string(), column.to_string());
    split(path, "\n", true, random, move |spot, line| {
        let damaged = |problem: String| {
            Error::corrupt(format!("reading {name}, line {}: {problem}", spot.index + 1))
                .hint("every line is a JSON object such as {\"text\": \"…\"}; `column` names another key")
        };
        let mut line = serde_json::Deserializer::from_str(&line);
        let text = Field(Some(&column)).deserialize(&mut line).and_then(|text| line.end().map(|()| text));
        let text = text.map_err(|e| damaged(e.to_string()))?;
        text.ok_or_else(|| damaged(format!("no text under \"{}\"", shown(&column))))
    })
}

/// The string under a key of an object; without a key, the value itself if it is one. What else there is gets passed over.
#[derive(Clone, Copy)]
struct Field<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> std::result::Result<Self::Value, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if self.0 == Some(key.as_str()) {
                found = map.next_value_seed(Field(None))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(self.0.is_none().then(|| text.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
}
