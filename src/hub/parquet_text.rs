//! One text column of a Parquet file, row group by row group: of each group only that column's bytes are read.
//!
//! The file may be anywhere: all it takes is somebody who brings ranges of its bytes.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};

use crate::error::{Error, Result};

/// First guess of the size of a footer.
const TAIL: u64 = 64 << 10;
/// Length of the footer, and the magic word.
const END: u64 = 8;
/// How much of an unforeseen place is read at once.
const STRAY: u64 = 64 << 10;

/// Brings bytes of the file.
pub type ReadRange = Arc<dyn Fn(Range<u64>) -> Result<Vec<u8>> + Send + Sync>;

/// Parts of a file that are in memory, by their first byte; others are read when they are asked for.
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

    /// What is in memory from `start` on.
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
            None => self.stray(start..start + length as u64),
        }
    }
}

pub struct TextColumn {
    name: String,
    windows: Windows,
    file: SerializedFileReader<Windows>,
    column: usize,
}

impl TextColumn {
    /// Opens column `column` of the file `name` of `bytes` bytes. Reads the footer.
    ///
    /// # Errors
    /// `corrupt` when it is not a Parquet file, `not_found` when it has no such column, `unsupported` when that holds no text.
    pub fn open(name: &str, bytes: u64, column: &str, read: ReadRange) -> Result<Self> {
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
        if footer > bytes {
            return Err(damaged(name, "its footer does not fit it"));
        }
        if bytes - footer < tail.start {
            windows.open(bytes - footer..tail.start)?;
            windows.merge(bytes - footer, tail.start);
        }
        let file = SerializedFileReader::new(windows.clone()).map_err(|e| unreadable(name, e))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let paths: Vec<String> = (0..schema.num_columns()).map(|i| schema.column(i).path().string()).collect();
        let found = paths.iter().position(|path| path == column).ok_or_else(|| {
            Error::not_found(format!("reading {name}: no column \"{column}\""))
                .hint(crate::suggest::hint(column, paths.iter().map(String::as_str)))
        })?;
        let descriptor = schema.column(found);
        if descriptor.physical_type() != parquet::basic::Type::BYTE_ARRAY || descriptor.max_rep_level() > 0 {
            let physical = descriptor.physical_type();
            return Err(Error::unsupported(format!(
                "reading {name}: column \"{column}\" holds {physical:?}, not text"
            ))
            .hint("name a column of strings with `column`"));
        }
        Ok(Self { name: name.to_string(), windows, file, column: found })
    }

    pub fn num_groups(&self) -> usize {
        self.file.num_row_groups()
    }

    /// The texts of one row group; rows without one are left out.
    pub fn group(&self, group: usize) -> Result<Vec<String>> {
        let metadata = self.file.metadata().row_group(group).column(self.column);
        let start = metadata.dictionary_page_offset().unwrap_or(metadata.data_page_offset());
        let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(metadata.compressed_size())) else {
            return Err(damaged(&self.name, "a column lies at a negative offset"));
        };
        if start.checked_add(length).is_none_or(|end| end > self.windows.bytes) {
            return Err(damaged(&self.name, "a column lies outside of it"));
        }
        self.windows.open(start..start + length)?;
        let texts = self.decoded(group);
        self.windows.close(start);
        texts
    }

    fn decoded(&self, group: usize) -> Result<Vec<String>> {
        let bad = |e| unreadable(&self.name, e);
        let reader = self.file.get_row_group(group).and_then(|group| group.get_column_reader(self.column));
        let ColumnReader::ByteArrayColumnReader(mut reader) = reader.map_err(bad)? else {
            return Err(damaged(&self.name, "a column of text holds something else"));
        };
        let rows = self.file.metadata().row_group(group).num_rows().max(0) as usize;
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        loop {
            let (records, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values).map_err(bad)?;
            if records == 0 {
                break;
            }
        }
        values.iter().map(|value| value.as_utf8().map(str::to_string).map_err(bad)).collect()
    }
}

impl Windows {
    /// Joins a window with the one that begins where it ends.
    fn merge(&self, first: u64, second: u64) {
        let mut open = self.open.lock().expect("no panic under this lock");
        if let (Some(a), Some(b)) = (open.remove(&first), open.remove(&second)) {
            open.insert(first, Bytes::from([a, b].concat()));
        }
    }
}

fn damaged(name: &str, problem: &str) -> Error {
    Error::corrupt(format!("reading {name}: {problem}")).hint("the file is damaged or incomplete; download it again")
}

/// An error of the Parquet library, or one of ours that went through it.
fn unreadable(name: &str, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => damaged(name, &other.to_string()),
        },
        ParquetError::NYI(what) => Error::unsupported(format!("reading {name}: {what}"))
            .hint("Parquet files compressed with snappy or zstd, or not at all, can be read"),
        other => damaged(name, &other.to_string()),
    }
}
