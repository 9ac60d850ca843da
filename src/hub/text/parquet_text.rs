//! One text column of a Parquet file, row group by row group. Only that column's bytes are read.
//!
//! The file may be anywhere: it needs only a function that reads byte ranges.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::failure::TextFailure;
use super::formats::{no_column, twice};
use super::parquet_checks::{self, Packed, Pages};
use super::text_file::ReadRange;
use super::texts::Texts;
use crate::error::{Error, Result};
use crate::outside::{complaint, guarded};

/// First guess of the footer's size.
const TAIL: u64 = 64 << 10;
/// Length of the footer, and the magic word.
const END: u64 = 8;
/// Number of bytes that are read at an unannounced position.
const STRAY: u64 = 64 << 10;
/// The largest footer in bytes: a few kilobytes for each row group.
const MAX_FOOTER: u64 = 256 << 20;
/// The largest column chunk in bytes.
const MAX_CHUNK: u64 = 4 << 30;
/// The largest row group, in bytes and rows, that is shuffled, because it is in memory as a whole.
const MAX_SHUFFLED: u64 = 4 << 30;
const MAX_SHUFFLED_ROWS: usize = 1 << 24;
/// The largest number of columns in a message.
const LISTED: usize = 12;
/// Number of rows that are decoded at a time.
const ROWS: usize = 256;

/// Parts of a file in memory, by their first byte. Others are read on demand.
#[derive(Clone)]
struct Windows {
    read: ReadRange,
    bytes: u64,
    open: Arc<Mutex<BTreeMap<u64, Bytes>>>,
}

impl Windows {
    fn open(&self, range: Range<u64>) -> Result<()> {
        let data = Bytes::from((self.read)(range.clone())?);
        self.open.lock().expect("no panic under this lock").insert(range.start, data);
        Ok(())
    }

    fn close(&self, start: u64) {
        self.open.lock().expect("no panic under this lock").remove(&start);
    }

    /// The bytes in memory from `start` on.
    fn from(&self, start: u64) -> Option<Bytes> {
        let open = self.open.lock().expect("no panic under this lock");
        let (first, data) = open.range(..=start).next_back()?;
        let skip = (start - first) as usize;
        (skip < data.len()).then(|| data.slice(skip..))
    }

    fn stray(&self, range: Range<u64>) -> parquet::errors::Result<Bytes> {
        (self.read)(range).map(Bytes::from).map_err(|e| ParquetError::External(Box::new(e)))
    }
}

impl Length for Windows {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Windows {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let data = self.from(start).map_or_else(|| self.stray(start..self.bytes.min(start + STRAY)), Ok)?;
        Ok(Cursor::new(data))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self.from(start).filter(|data| data.len() >= length) {
            Some(data) => Ok(data.slice(..length)),
            None => match start.checked_add(length as u64).filter(|end| *end <= self.bytes) {
                Some(end) => self.stray(start..end),
                None => Err(ParquetError::EOF("a page lies outside of the file".to_string())),
            },
        }
    }
}

pub(crate) struct TextColumn {
    name: String,
    windows: Windows,
    file: SerializedFileReader<Windows>,
    column: usize,
}

impl TextColumn {
    /// Opens column `column` of the file `name` of `bytes` bytes, and reads the footer.
    ///
    /// # Errors
    /// `corrupt` if it is not a Parquet file, `not_found` if the column does not exist,
    /// `unsupported` if it does not contain texts.
    pub(crate) fn open(name: &str, bytes: u64, column: &str, read: ReadRange) -> Result<Self> {
        let windows = Windows { read, bytes, open: Arc::default() };
        if bytes < END {
            return Err(damaged(name, "too short for a Parquet file"));
        }
        let tail = bytes - TAIL.min(bytes)..bytes;
        windows.open(tail.clone())?;
        let end = windows.from(bytes - END).expect("the end is in memory");
        let (size, magic) = end.split_at(4);
        if magic != b"PAR1" {
            return Err(damaged(name, "it does not end like a Parquet file"));
        }
        let footer = END + u32::from_le_bytes(size.try_into().expect("four bytes")) as u64;
        if footer > bytes || footer > MAX_FOOTER {
            return Err(damaged(name, "its footer does not fit it"));
        }
        if bytes - footer < tail.start {
            windows.open(bytes - footer..tail.start)?;
            windows.merge(bytes - footer, tail.start);
        }
        let described = windows.from(bytes - footer).filter(|end| end.len() as u64 >= footer);
        if !described.is_some_and(|end| parquet_checks::schema_fits(&end[..(footer - END) as usize])) {
            return Err(damaged(name, "its schema does not fit it"));
        }
        let file = reading(name, || SerializedFileReader::new(windows.clone()))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let leaves: Vec<_> = (0..schema.num_columns()).map(|i| schema.column(i)).collect();
        let path_of = |leaf: &ColumnDescriptor| leaf.path().string();
        let texts: Vec<String> =
            leaves.iter().filter(|leaf| no_text(leaf).is_none()).map(|leaf| path_of(leaf)).collect();
        let Some(found) = leaves.iter().position(|leaf| path_of(leaf) == column) else {
            let below = format!("{column}.");
            return Err(match leaves.iter().find(|leaf| path_of(leaf).starts_with(&below)) {
                Some(leaf) if leaf.max_rep_level() > 0 => wrong_column(name, column, "lists", &texts),
                _ if texts.is_empty() => {
                    let roots = schema.root_schema().get_fields().iter().map(|field| field.name().to_string());
                    no_column(name, column, &roots.collect::<Vec<_>>()).hint(
                        "none of them holds one string in each row: write such a column, and name it with `column`",
                    )
                }
                _ => no_column(name, column, &texts),
            });
        };
        if leaves.iter().filter(|leaf| path_of(leaf) == column).count() > 1 {
            return Err(twice(name, column).hint("write the file with a name of its own for each column"));
        }
        if let Some(what) = no_text(&leaves[found]) {
            return Err(wrong_column(name, column, &what, &texts));
        }
        Ok(Self { name: name.to_string(), windows, file, column: found })
    }

    pub(crate) fn num_groups(&self) -> usize {
        self.file.num_row_groups()
    }

    /// The texts of one row group, in random order if there is a generator. Rows without a text are
    /// left out. In file order they are decoded a few at a time.
    pub(crate) fn group(&self, group: usize, random: Option<ChaCha8Rng>) -> Result<Texts> {
        let mut rows = self.rows(group)?;
        let Some(mut random) = random else { return Ok(Box::new(rows)) };
        if rows.unpacked > MAX_SHUFFLED {
            return Err(rows.too_large());
        }
        let mut all = Vec::new();
        while rows.more()? {
            all.extend(rows.ready.drain(..));
            if all.len() > MAX_SHUFFLED_ROWS {
                return Err(rows.too_large());
            }
        }
        all.shuffle(&mut random);
        rows.ready = all.into();
        Ok(Box::new(rows))
    }

    fn rows(&self, group: usize) -> Result<Rows> {
        let metadata = self.file.metadata().row_group(group).column(self.column);
        let compression = metadata.compression();
        let start = metadata.dictionary_page_offset().unwrap_or(metadata.data_page_offset());
        let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(metadata.compressed_size())) else {
            return Err(damaged(&self.name, "a column lies at a negative offset"));
        };
        if start.checked_add(length).is_none_or(|end| end > self.windows.bytes) {
            return Err(damaged(&self.name, "a column lies outside of it"));
        }
        if length > MAX_CHUNK {
            return Err(Error::of(TextFailure::LargeRowGroup { name: self.name.clone(), bytes: length }));
        }
        self.windows.open(start..start + length)?;
        let open = Open { windows: self.windows.clone(), start };
        let chunk = self.windows.from(start).unwrap_or_default();
        let unpacked = parquet_checks::unpacked(&chunk[..chunk.len().min(length as usize)])
            .ok_or_else(|| damaged(&self.name, "its pages do not fit it"))?;
        let descriptor = self.file.metadata().file_metadata().schema_descr().column(self.column);
        let optional = descriptor.max_def_level() > 0;
        let reader = reading(&self.name, || {
            let pages = self.file.get_row_group(group)?.get_column_page_reader(self.column)?;
            let packed = Packed { chunk: chunk.slice(..chunk.len().min(length as usize)), compression };
            Ok(ColumnReaderImpl::new(descriptor, Box::new(Pages { pages, packed, optional })))
        })?;
        Ok(Rows { name: self.name.clone(), reader, ready: VecDeque::new(), unpacked, ended: false, _open: open })
    }
}

/// A part of the file that stays in memory until this is dropped.
struct Open {
    windows: Windows,
    start: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.windows.close(self.start);
    }
}

/// The remaining texts of one row group.
struct Rows {
    name: String,
    reader: ColumnReaderImpl<ByteArrayType>,
    ready: VecDeque<ByteArray>,
    /// Uncompressed size of all pages in bytes.
    unpacked: u64,
    ended: bool,
    _open: Open,
}

impl Rows {
    /// Decodes more texts. False at the end.
    fn more(&mut self) -> Result<bool> {
        while self.ready.is_empty() && !self.ended {
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let read = || self.reader.read_records(ROWS, Some(&mut levels), None, &mut values);
            self.ended = reading(&self.name, read)?.0 == 0;
            self.ready = values.into();
        }
        Ok(!self.ready.is_empty())
    }

    fn text(&mut self) -> Result<Option<String>> {
        if !self.more()? {
            return Ok(None);
        }
        // A column without a declared text type may contain any bytes.
        self.ready
            .pop_front()
            .map(|value| value.as_utf8().map(str::to_string))
            .transpose()
            .map_err(|_| Error::of(TextFailure::NoUtf8 { name: self.name.clone() }))
    }

    fn too_large(&self) -> Error {
        Error::of(TextFailure::RowGroupTooLargeToShuffle { name: self.name.clone() })
    }
}

impl Iterator for Rows {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text().transpose()
    }
}

impl Windows {
    /// Joins a window with the one that begins at its end.
    fn merge(&self, first: u64, second: u64) {
        let mut open = self.open.lock().expect("no panic under this lock");
        if let (Some(a), Some(b)) = (open.remove(&first), open.remove(&second)) {
            open.insert(first, Bytes::from([a, b].concat()));
        }
    }
}

/// A description of a column that does not contain one text per row.
fn no_text(leaf: &ColumnDescriptor) -> Option<String> {
    let physical = leaf.physical_type();
    let other = match (leaf.logical_type_ref(), leaf.converted_type()) {
        (Some(LogicalType::Decimal { .. } | LogicalType::Bson), _) => true,
        (None, ConvertedType::DECIMAL | ConvertedType::BSON) => true,
        _ => physical != parquet::basic::Type::BYTE_ARRAY,
    };
    match leaf.max_rep_level() {
        0 if other => Some(format!("{physical:?}")),
        0 => None,
        _ => Some("lists".to_string()),
    }
}

fn wrong_column(name: &str, column: &str, what: &str, texts: &[String]) -> Error {
    Error::of(TextFailure::NoTextColumn {
        name: name.to_string(),
        column: column.to_string(),
        holds: what.to_string(),
        texts: texts.iter().take(LISTED).cloned().collect(),
    })
}

fn damaged(name: &str, problem: &str) -> Error {
    Error::of(TextFailure::DamagedParquet { name: name.to_string(), problem: problem.to_string() })
}

/// Calls the Parquet library, which may panic on a damaged file.
fn reading<T>(name: &str, call: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    guarded(call).map_err(|said| damaged(name, &said))?.map_err(|e| unreadable(name, e))
}

/// An error of the Parquet library, or one of ours that has passed through it.
fn unreadable(name: &str, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => damaged(name, &complaint(other)),
        },
        ParquetError::NYI(what) => {
            Error::of(TextFailure::OtherCompression { name: name.to_string(), problem: complaint(what) })
        }
        other => damaged(name, &complaint(other)),
    }
}
