//! The archive around a pickle and its storages: a zip with uncompressed entries, so that each is a
//! range of the file.
//!
//! Only the directory at its end is read, and the header before each needed entry, which has the
//! amount of padding that `torch.save` has added. Facts: PKWARE's APPNOTE, and `caffe2/serialize`
//! of PyTorch.

use std::ops::Range;

use super::problem::{Outcome, damaged, unsupported};
use crate::outside::shown;

/// Number of bytes at the end of a file that are read first: the end of the directory with the
/// longest comment, and usually all of it.
pub(super) const TAIL: u64 = 128 << 10;
/// The largest directory in bytes.
pub(super) const MAX_DIRECTORY: u64 = 32 << 20;
/// Size of the fixed part of an entry's header before its name.
pub(super) const LOCAL: u64 = 30;
const CENTRAL: usize = 46;
/// The largest size of the names and extra fields between a header and its data.
const MAX_NAMES: u64 = 2 * u16::MAX as u64;

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const END_64: &[u8] = b"PK\x06\x06";
const END_64_BYTES: usize = 56;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const ENTRY: &[u8] = b"PK\x01\x02";
const HEADER: &[u8] = b"PK\x03\x04";
/// The number of the extra field with 64-bit sizes.
const SIZES_64: u16 = 1;
const ENCRYPTED: u16 = 1;
const AS_IT_IS: u16 = 0;

fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([data[at], data[at + 1]])
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"))
}

/// The location of the directory.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub range: Range<u64>,
    entries: u64,
}

/// The location of the directory, from the last bytes of a file of `bytes` bytes; None if no
/// archive ends there.
pub(super) fn place(tail: &[u8], bytes: u64) -> Outcome<Option<Place>> {
    let whole =
        |at: &usize| tail[*at..].starts_with(END) && at + END_BYTES + u16_at(tail, at + 20) as usize == tail.len();
    let Some(at) =
        (0..=tail.len().saturating_sub(END_BYTES)).rev().find(|at| at + END_BYTES <= tail.len() && whole(at))
    else {
        return Ok(None);
    };
    let offset = |at: usize| bytes - (tail.len() - at) as u64;
    let (mut disks, mut end) = ([u16_at(tail, at + 4), u16_at(tail, at + 6)].map(u32::from), offset(at));
    let (mut entries, mut size, mut begin) =
        (u16_at(tail, at + 10).into(), u32_at(tail, at + 12).into(), u32_at(tail, at + 16).into());
    if let Some(locator) = at.checked_sub(LOCATOR_BYTES).filter(|locator| tail[*locator..].starts_with(LOCATOR)) {
        let record = u64_at(tail, locator + 8).checked_sub(offset(0)).map(|record| record as usize);
        let Some(record) = record.filter(|record| {
            record.checked_add(END_64_BYTES).is_some_and(|end| end <= locator) && tail[*record..].starts_with(END_64)
        }) else {
            return damaged("the end of its directory is not where it says");
        };
        disks = [u32_at(tail, record + 16), u32_at(tail, record + 20)];
        (entries, size, begin) = (u64_at(tail, record + 32), u64_at(tail, record + 40), u64_at(tail, record + 48));
        end = offset(record);
    }
    if disks != [0, 0] {
        return unsupported("an archive in several parts");
    }
    let Some(range) = begin.checked_add(size).filter(|directory| *directory <= end).map(|end| begin..end) else {
        return damaged(format!("a directory of {size} bytes at byte {begin} does not fit a file of {bytes} bytes"));
    };
    if size > MAX_DIRECTORY || entries > size / CENTRAL as u64 {
        return damaged(format!("a directory of {size} bytes with {entries} entries is none of a file of weights"));
    }
    Ok(Some(Place { range, entries }))
}

/// An entry of the directory.
struct Entry {
    /// The range of the name in the directory.
    name: Range<usize>,
    flags: u16,
    method: u16,
    packed: u64,
    bytes: u64,
    /// The offset of its header in the file.
    begin: u64,
    /// The offset before which it must end: that of the next entry or of the directory.
    limit: u64,
}

pub(super) struct Directory {
    pub data: Vec<u8>,
    /// The entries, sorted by name.
    entries: Vec<Entry>,
    /// The common prefix of all names, with its slash.
    prefix: String,
}

impl Directory {
    /// # Errors
    /// An error for entries that are truncated, overlap or leave the file, and for duplicate names.
    pub(super) fn read(data: Vec<u8>, place: &Place) -> Outcome<Self> {
        let mut entries: Vec<Entry> = Vec::with_capacity(place.entries as usize);
        let mut at = 0;
        for number in 0..place.entries {
            let (entry, end) = match entry(&data, at)? {
                Some(found) => found,
                None => return damaged(format!("its directory has no entry {number} of {}", place.entries)),
            };
            entries.push(entry);
            at = end;
        }
        if at != data.len() {
            return damaged("its directory is longer than its entries");
        }
        let name = |entry: &Entry| &data[entry.name.clone()];
        let prefix = entries.first().map(name).and_then(|name| {
            let end = name.iter().position(|byte| *byte == b'/')?;
            std::str::from_utf8(&name[..=end]).ok()
        });
        let Some(prefix) = prefix.map(str::to_string) else {
            return damaged("a zip archive, but none that torch.save writes: its first entry is in no folder");
        };
        entries.sort_by_key(|entry| entry.begin);
        let mut limit = place.range.start;
        for entry in entries.iter_mut().rev() {
            entry.limit = limit;
            let least =
                entry.begin.checked_add(LOCAL + entry.name.len() as u64).and_then(|at| at.checked_add(entry.packed));
            if least.is_none_or(|end| end > limit) {
                let name = shown(&String::from_utf8_lossy(name(entry)));
                return damaged(format!("`{name}` in it overlaps what comes behind it, or leaves the file"));
            }
            limit = entry.begin;
        }
        entries.sort_by(|one, other| name(one).cmp(name(other)));
        if let Some(twice) = entries.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return damaged(format!("`{}` is in it twice", shown(&String::from_utf8_lossy(name(&twice[0])))));
        }
        Ok(Self { data, entries, prefix })
    }

    /// An entry by its name without the prefix; None if it does not exist.
    ///
    /// # Errors
    /// An error if it is compressed or encrypted.
    pub(super) fn find(&self, name: &str) -> Outcome<Option<Found>> {
        let name = format!("{}{name}", self.prefix);
        let of = |entry: &Entry| &self.data[entry.name.clone()];
        let Ok(index) = self.entries.binary_search_by(|entry| of(entry).cmp(name.as_bytes())) else { return Ok(None) };
        let entry = &self.entries[index];
        let told = shown(&name);
        if entry.flags & ENCRYPTED != 0 {
            return unsupported(format!("`{told}` in it is encrypted"));
        }
        if entry.method != AS_IT_IS {
            return unsupported(format!("`{told}` in it is compressed, and torch.save compresses nothing"));
        }
        if entry.packed != entry.bytes {
            return damaged(format!("`{told}` in it has {} bytes and is {} long", entry.bytes, entry.packed));
        }
        let Entry { name, bytes, begin, limit, .. } = entry;
        Ok(Some(Found { name: told, name_bytes: name.len() as u64, bytes: *bytes, begin: *begin, limit: *limit }))
    }
}

/// The entry at `at`, and the offset of the next one; None if there is none.
fn entry(data: &[u8], at: usize) -> Outcome<Option<(Entry, usize)>> {
    let rest = &data[at..];
    if rest.len() < CENTRAL || !rest.starts_with(ENTRY) {
        return Ok(None);
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(rest, at) as usize);
    let end = CENTRAL + name + extra + comment;
    if end > rest.len() {
        return Ok(None);
    }
    let [mut packed, mut bytes, mut begin] = [20, 24, 42].map(|at| u64::from(u32_at(rest, at)));
    // Sizes that do not fit are, in this order, in an extra field.
    let wide = field(&rest[CENTRAL + name..CENTRAL + name + extra], SIZES_64);
    let mut wide = wide.map_or(&[][..], |field| field).chunks_exact(8);
    for value in [&mut bytes, &mut packed, &mut begin] {
        if *value == u64::from(u32::MAX)
            && let Some(field) = wide.next()
        {
            *value = u64_at(field, 0);
        }
    }
    let name = at + CENTRAL..at + CENTRAL + name;
    let (flags, method) = (u16_at(rest, 8), u16_at(rest, 10));
    Ok(Some((Entry { name, flags, method, packed, bytes, begin, limit: 0 }, at + end)))
}

/// The extra field with this number.
fn field(mut extra: &[u8], number: u16) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let bytes = u16_at(extra, 2) as usize;
        let content = extra[4..].get(..bytes)?;
        if u16_at(extra, 0) == number {
            return Some(content);
        }
        extra = &extra[4 + bytes..];
    }
    None
}

/// A needed entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The name for messages.
    name: String,
    name_bytes: u64,
    pub bytes: u64,
    begin: u64,
    limit: u64,
}

impl Found {
    /// The header before it, without the name.
    pub(super) fn header(&self) -> Range<u64> {
        self.begin..self.begin + LOCAL
    }

    /// Header and data, with all bytes between them.
    pub(super) fn all(&self) -> Range<u64> {
        self.begin..self.limit.min((self.begin + LOCAL + MAX_NAMES).saturating_add(self.bytes))
    }

    /// The range of its data in the file, by its header.
    pub(super) fn data(&self, header: &[u8]) -> Outcome<Range<u64>> {
        let is_header = header.len() as u64 >= LOCAL && header.starts_with(HEADER);
        if !is_header || u64::from(u16_at(header, 26)) != self.name_bytes || u16_at(header, 8) != AS_IT_IS {
            return damaged(format!("`{}` in it is not where its directory says", self.name));
        }
        let begin = self.begin + LOCAL + self.name_bytes + u64::from(u16_at(header, 28));
        match begin.checked_add(self.bytes).filter(|end| *end <= self.limit) {
            Some(end) => Ok(begin..end),
            None => damaged(format!("`{}` in it overlaps what comes behind it", self.name)),
        }
    }

    /// Its data in the bytes of `all`.
    pub(super) fn content<'a>(&self, all: &'a [u8]) -> Outcome<&'a [u8]> {
        let range = self.data(all)?;
        let [begin, end] = [range.start, range.end].map(|at| (at - self.begin) as usize);
        all.get(begin..end).map_or_else(|| damaged(format!("`{}` in it is cut off", self.name)), Ok)
    }
}
