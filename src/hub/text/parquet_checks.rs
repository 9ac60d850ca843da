//! Checks of nesting, counts and sizes in a Parquet file, which the library uses before it has seen
//! the data. A file with impossible numbers is rejected before memory is allocated.

use std::io::{Read, Write};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// The largest depth of nested groups.
const MAX_DEPTH: usize = 64;
/// The largest uncompressed page in bytes; writers make pages of about a megabyte.
const MAX_PAGE: u64 = 1 << 30;
/// The largest number of texts in a page that stores all lengths together.
const MAX_LENGTHS: u64 = 1 << 24;
/// Size in bytes of the length before a text.
const LENGTH: usize = 4;

/// The kind of a page that is not read.
const INDEX_PAGE: i32 = 1;

/// Kinds of values in Thrift's compact protocol.
const BOOLEANS: [u8; 2] = [1, 2];
const BYTE: u8 = 3;
const I32: u8 = 5;
const INTEGERS: [u8; 3] = [4, I32, 6];
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// The rest of data in Thrift's compact protocol. None means its end, or invalid data.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A signed number of 32 bits.
    fn signed(&mut self) -> Option<i32> {
        let number = self.number()?;
        Some(((number >> 1) as i64 ^ -((number & 1) as i64)) as i32)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// Kind of the items and their number.
    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
        Some((head & 15, count))
    }

    /// Reads a struct. `field` is called with the number and kind of each field, and returns
    /// whether it has read it.
    fn fields(&mut self, depth: usize, mut field: impl FnMut(&mut Self, i64, u8) -> Option<bool>) -> Option<()> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            let kind = head & 15;
            if kind == 0 {
                return Some(());
            }
            id = if head >> 4 == 0 { i64::from(self.signed()?) } else { id + i64::from(head >> 4) };
            if !field(self, id, kind)? && !BOOLEANS.contains(&kind) {
                self.skip(kind, depth)?;
            }
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let deeper = depth.checked_sub(1)?;
        match kind {
            BYTE => self.pass(1),
            _ if BOOLEANS.contains(&kind) => self.pass(1),
            _ if INTEGERS.contains(&kind) => self.number().map(drop),
            DOUBLE => self.pass(8),
            BINARY => self.number().and_then(|bytes| self.pass(bytes)),
            LIST | SET => {
                let (kind, count) = self.list()?;
                // Every item has at least one byte.
                (count <= self.0.len() as u64).then_some(())?;
                (0..count).try_for_each(|_| self.skip(kind, deeper))
            }
            MAP => {
                let count = self.number()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (count <= self.0.len() as u64).then_some(())?;
                (0..count).try_for_each(|_| self.skip(kinds >> 4, deeper).and_then(|()| self.skip(kinds & 15, deeper)))
            }
            STRUCT => self.fields(deeper, |_, _, _| Some(false)),
            UUID => self.pass(16),
            _ => None,
        }
    }
}

/// True if the groups of a footer's schema have the declared number of members and a limited depth.
pub(crate) fn schema_fits(footer: &[u8]) -> bool {
    let mut members = Vec::new();
    let read = Thrift(footer).fields(MAX_DEPTH, |thrift, id, kind| {
        if (id, kind) != (2, LIST) {
            return Some(false);
        }
        let (_, count) = thrift.list()?;
        for _ in 0..count {
            let mut own = 0;
            thrift.fields(MAX_DEPTH, |thrift, id, kind| {
                if (id, kind) != (5, I32) {
                    return Some(false);
                }
                own = thrift.signed()?;
                Some(true)
            })?;
            members.push(own);
        }
        Some(true)
    });
    // The number of remaining members of each open group.
    let mut open: Vec<i32> = Vec::new();
    for (i, own) in members.iter().enumerate() {
        if *own < 0 || *own as usize > members.len() - i - 1 {
            return false;
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(*own);
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > MAX_DEPTH {
            return false;
        }
    }
    read.is_some() && open.is_empty()
}

/// The header of a page.
struct PageHeader {
    kind: i32,
    /// Bytes without compression, and bytes in the file.
    unpacked: u64,
    packed: usize,
    /// Number of first bytes that are never compressed.
    levels: usize,
    is_packed: bool,
}

impl PageHeader {
    /// Reads the header at the beginning of `chunk` and returns the rest. None if it is invalid.
    fn read(chunk: &[u8]) -> Option<(Self, &[u8])> {
        let mut header = Thrift(chunk);
        let (mut kind, mut unpacked, mut packed) = (-1, -1, -1);
        let (mut levels, mut is_packed) = ([0, 0], true);
        header.fields(MAX_DEPTH, |thrift, id, field| {
            match (id, field) {
                (1, I32) => kind = thrift.signed()?,
                (2, I32) => unpacked = thrift.signed()?,
                (3, I32) => packed = thrift.signed()?,
                // In a page of version 2: bytes of levels, and whether the rest is compressed.
                (8, STRUCT) => thrift.fields(MAX_DEPTH, |thrift, id, field| {
                    match (id, field) {
                        (5 | 6, I32) => levels[id as usize - 5] = thrift.signed()?,
                        (7, 1 | 2) => is_packed = field == 1,
                        _ => return Some(false),
                    }
                    Some(true)
                })?,
                _ => return Some(false),
            }
            Some(true)
        })?;
        let unpacked = u64::try_from(unpacked).ok().filter(|bytes| *bytes <= MAX_PAGE)?;
        let packed = usize::try_from(packed).ok().filter(|bytes| *bytes <= header.0.len())?;
        let [a, b] = levels.map(usize::try_from);
        let levels = a.ok()?.checked_add(b.ok()?)?;
        Some((Self { kind, unpacked, packed, levels, is_packed }, header.0))
    }
}

/// The declared uncompressed size of the pages of a column chunk; None if they do not fit the chunk
/// or are too large.
pub(crate) fn unpacked(mut chunk: &[u8]) -> Option<u64> {
    let mut sum = 0;
    while !chunk.is_empty() {
        let (header, rest) = PageHeader::read(chunk)?;
        sum += header.unpacked;
        chunk = &rest[header.packed..];
    }
    Some(sum)
}

/// The compressed pages of a column chunk, from the next one on.
pub(crate) struct Packed {
    pub chunk: Bytes,
    pub compression: Compression,
}

impl Packed {
    /// Skips the next page. None if it decompresses to more than it declares, or is invalid.
    fn pass(&mut self) -> Option<()> {
        while !self.chunk.is_empty() {
            let (header, rest) = PageHeader::read(&self.chunk)?;
            let page = self.chunk.slice(self.chunk.len() - rest.len()..);
            self.chunk = page.slice(header.packed..);
            // The reader skips index pages.
            if header.kind != INDEX_PAGE {
                let data = page.slice(header.levels.min(header.packed)..header.packed);
                let most = header.unpacked.checked_sub(header.levels as u64)?;
                return (!header.is_packed || unpacks_within(self.compression, &data, most)).then_some(());
            }
        }
        Some(())
    }
}

/// True if data decompresses to at most this many bytes. For some methods the library decompresses
/// everything and checks the declared size only afterwards.
fn unpacks_within(compression: Compression, data: &[u8], most: u64) -> bool {
    let unpacked: Box<dyn Read> = match compression {
        Compression::GZIP(_) => Box::new(flate2::bufread::MultiGzDecoder::new(data)),
        Compression::BROTLI(_) => Box::new(brotli::Decompressor::new(data, 4096)),
        // Hadoop's variant is not a frame, and its size is not checked.
        Compression::LZ4 => Box::new(lz4_flex::frame::FrameDecoder::new(data)),
        _ => return true,
    };
    // The library reports damage after decompressing up to the limit.
    let mut counted = Counted(0);
    let _ = std::io::copy(&mut unpacked.take(most + 1), &mut counted);
    counted.0 <= most
}

/// Counts written bytes without storing them.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The pages of a text column, each with a plausible count.
pub(crate) struct Pages {
    pub pages: Box<dyn PageReader>,
    pub packed: Packed,
    /// True if rows may have no text.
    pub optional: bool,
}

impl Pages {
    fn check(&self, page: &Page) -> Option<()> {
        let delta = |encoding| matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY);
        let (texts, num_values) = match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                return (*num_values as usize <= buf.len() / LENGTH).then_some(());
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } if delta(*encoding) => {
                let levels = match (self.optional, *def_level_encoding) {
                    (false, _) => 0,
                    (true, Encoding::RLE) => LENGTH + u32::from_le_bytes(buf.get(..LENGTH)?.try_into().ok()?) as usize,
                    // One bit per value.
                    (true, _) => (*num_values as usize).div_ceil(8),
                };
                (buf.get(levels..)?, *num_values)
            }
            Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. }
                if delta(*encoding) =>
            {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                (buf.get(levels..)?, *num_values)
            }
            _ => return Some(()),
        };
        // Sizes of blocks, and then the number of lengths.
        let mut lengths = Thrift(texts);
        lengths.number().and(lengths.number())?;
        let count = lengths.number()?;
        (count <= u64::from(num_values) && count <= MAX_LENGTHS).then_some(())
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        if self.packed.pass().is_none() {
            return Err(ParquetError::General("a page unpacks to more than it says".to_string()));
        }
        let page = self.pages.get_next_page()?;
        match page.as_ref().is_none_or(|page| self.check(page).is_some()) {
            true => Ok(page),
            false => Err(ParquetError::General("a page counts more texts than it can hold".to_string())),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if self.packed.pass().is_none() {
            return Err(ParquetError::General("a page unpacks to more than it says".to_string()));
        }
        self.pages.skip_next_page()
    }
}
