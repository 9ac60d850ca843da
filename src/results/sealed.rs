//! A file that shows whether it is complete: a magic number, a JSON header, any payload, and
//! SHA-256 of both.
//!
//! ```text
//! magic (24 bytes) | header length u64 LE | header | SHA-256 of all before | payload | SHA-256 of
//! all before
//! ```
//! It is written under one fixed name beside its path, flushed, and then renamed: however often
//! writing is interrupted, there is at most one unfinished file. Reading and writing are streamed
//! through a buffer.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Take, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::outside;

/// This is raised when the layout changes, of this file or of the checkpoint that it holds.
const MARK: &[u8; 24] = b"outlier checkpoint  v 4\n";
/// The beginning of the magic number in every version.
const OURS: &[u8] = b"outlier checkpoint";
const DIGEST: u64 = 32;
/// A header that claims more is damaged.
const MAX_HEADER: u64 = 16 << 20;
const BUFFER: usize = 1 << 20;
/// The suffix of an unfinished file, behind the name of the finished one.
const PARTIAL: &str = ".partial";

/// A reader or writer that hashes all bytes that pass through it.
struct Hashing<T> {
    inner: T,
    digest: Sha256,
}

impl<T> Hashing<T> {
    fn so_far(&self) -> [u8; DIGEST as usize] {
        self.digest.clone().finalize().into()
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(data)?;
        self.digest.update(&data[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

/// Writes the payload as `std::io::Write`. If it is dropped before it is finished, the file is
/// removed.
pub struct Writer {
    path: PathBuf,
    file: Option<BufWriter<Hashing<File>>>,
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

/// Returns whether an open file is an unfinished checkpoint of any version of this program: a
/// regular file that is empty or begins like one.
fn is_unfinished(file: &File) -> std::io::Result<bool> {
    let mut begin = [0; OURS.len()];
    let count = if file.metadata()?.is_file() { file.read_at(&mut begin, 0)? } else { return Ok(false) };
    Ok(OURS.starts_with(&begin[..count]))
}

/// Opens a file that may exist under the name of an unfinished file. It never blocks.
fn left(part: &Path, make: bool) -> std::io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    File::options().create(make).truncate(false).read(true).write(true).custom_flags(flags).open(part)
}

impl Writer {
    /// Creates the file, and the folder of `path` if needed.
    pub fn create(path: &Path, header: &Value) -> Result<Self> {
        let writing = |e: std::io::Error| Error::io(format!("writing {}", path.display()), &e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(writing)?;
        }
        let part = partial(path);
        let file = loop {
            let file = left(&part, true).map_err(writing)?;
            if !is_unfinished(&file).map_err(writing)? {
                return Err(Error::bad_argument(format!(
                    "{} exists and is not an unfinished checkpoint",
                    part.display()
                ))
                .hint("it would be overwritten: name another file"));
            }
            // On network file systems without locks, this check always succeeds.
            if !disk::try_lock(&file) {
                let message = format!("writing {}: another run writes it at this moment", path.display());
                return Err(Error::bad_argument(message).hint("give each run a checkpoint of its own"));
            }
            // The previous holder of the lock may have finished or removed the file between opening
            // and locking. The opened file is then no longer the one at this path.
            if disk::is_same_file(&file, &part) {
                break file;
            }
        };
        let mut writer = Self {
            path: path.to_path_buf(),
            file: Some(BufWriter::with_capacity(BUFFER, Hashing { inner: file, digest: Sha256::new() })),
        };
        writer.begin(header).map_err(writing)?;
        Ok(writer)
    }

    fn open(&mut self) -> &mut BufWriter<Hashing<File>> {
        self.file.as_mut().expect("open until finished")
    }

    fn begin(&mut self, header: &Value) -> std::io::Result<()> {
        self.open().get_ref().inner.set_len(0)?;
        let header = serde_json::to_vec(header).expect("JSON");
        self.write_all(MARK)?;
        self.write_all(&(header.len() as u64).to_le_bytes())?;
        self.write_all(&header)?;
        self.seal()
    }

    fn seal(&mut self) -> std::io::Result<()> {
        let file = self.open();
        file.flush()?;
        let digest = file.get_ref().so_far();
        file.write_all(&digest)?;
        file.flush()
    }

    /// Completes the file and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        let sealed = self.seal().and_then(|()| {
            self.flush()?;
            disk::rename(&partial(&self.path), &self.path)
        });
        sealed.map_err(|e| Error::io(format!("writing {}", self.path.display()), &e))?;
        self.file = None;
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.open().write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.open().flush()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // The buffered bytes are discarded. The lock is held until the file has been removed.
            let (file, _) = file.into_parts();
            let _ = std::fs::remove_file(partial(&self.path));
            drop(file);
        }
    }
}

/// Reads the payload as `std::io::Read`. The payload is valid only if `finish` succeeds.
pub struct Reader {
    place: String,
    file: BufReader<Hashing<Take<File>>>,
}

impl Reader {
    /// Returns the header and a reader of the payload, or nothing if there is no file.
    ///
    /// # Errors
    /// `Kind::Corrupt` if the file is damaged, `Kind::VersionMismatch` if another version of the
    /// program wrote it, `Kind::BadArgument` if it is no such file at all.
    pub fn open(path: &Path) -> Result<Option<(Value, Self)>> {
        let place = path.display().to_string();
        let other = || {
            Error::bad_argument(format!("{place} exists and is not a checkpoint"))
                .hint("it would be overwritten: name another file")
        };
        let file = match outside::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(_) if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) => return Err(other()),
            Err(e) => return Err(Error::io(format!("reading {place}"), &e)),
        };
        let metadata = file.metadata().map_err(|e| Error::io(format!("reading {place}"), &e))?;
        let mut mark = Vec::new();
        let begin = (&file).take(MARK.len() as u64).read_to_end(&mut mark);
        if begin.is_ok() && !MARK.starts_with(&mark) {
            return Err(match mark.starts_with(OURS) {
                true => Error::new(Kind::VersionMismatch, format!("{place} is of another version of this program")),
                false => other(),
            });
        }
        let damaged = |problem: &str| Error::corrupt(format!("reading {place}: {problem}"));
        let rest = metadata.len().saturating_sub(DIGEST + mark.len() as u64);
        let mut reader = Hashing { inner: file.take(rest), digest: Sha256::new_with_prefix(&mark) };
        let header = begin.and_then(|_| header(&mut reader)).map_err(|e| damaged(&e.to_string()))?;
        Ok(Some((header, Self { place, file: BufReader::with_capacity(BUFFER, reader) })))
    }

    /// Checks that the payload has been read to its end and matches its hash.
    pub fn finish(mut self) -> Result<()> {
        let damaged = |problem: &str| Error::corrupt(format!("reading {}: {problem}", self.place));
        let rest = self.file.buffer().len() as u64 + self.file.get_ref().inner.limit();
        if rest > 0 {
            return Err(damaged("it is longer than it should be"));
        }
        let reader = self.file.get_mut();
        let digest = reader.so_far();
        let mut stored = Vec::new();
        reader.inner.set_limit(DIGEST + 1);
        let read = reader.inner.read_to_end(&mut stored);
        if read.is_err() || stored != digest {
            return Err(damaged("its checksum is wrong"));
        }
        Ok(())
    }
}

fn header(reader: &mut Hashing<Take<File>>) -> std::io::Result<Value> {
    let damaged = |problem: &'static str| std::io::Error::other(problem);
    let mut length = [0; 8];
    reader.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(reader.inner.limit()) {
        return Err(damaged("its header is damaged"));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header)?;
    let digest = reader.so_far();
    let mut stored = [0; DIGEST as usize];
    reader.read_exact(&mut stored)?;
    if stored != digest {
        return Err(damaged("its header is damaged"));
    }
    outside::json::from_slice(&header, outside::json::SMALL).map_err(|_| damaged("its header is damaged"))
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer)
    }
}

/// Returns the header of the file, if the file is valid.
pub fn header_of(path: &Path) -> Option<Value> {
    Reader::open(path).ok().flatten().map(|(header, _)| header)
}

/// Removes the file and any unfinished one. Neither needs to exist.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    let part = partial(path);
    let unfinished =
        |file: &File| is_unfinished(file).unwrap_or(false) && disk::try_lock(file) && disk::is_same_file(file, &part);
    if left(&part, false).is_ok_and(|file| unfinished(&file)) {
        let _ = std::fs::remove_file(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path) -> (PathBuf, Value, Vec<u8>) {
        let path = folder.join("made/here");
        let header = serde_json::json!({ "layer": 3 });
        let payload: Vec<u8> = (0..1000u32).map(|i| (i * i) as u8).collect();
        let mut writer = Writer::create(&path, &header).unwrap();
        payload.chunks(7).for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap();
        (path, header, payload)
    }

    fn read(path: &Path) -> Result<Option<(Value, Vec<u8>)>> {
        let Some((header, mut reader)) = Reader::open(path)? else { return Ok(None) };
        // The payload is read as users read it, by its exact length.
        let mut payload = vec![0; 1000];
        let got = reader.read_exact(&mut payload).map_err(|e| Error::corrupt(e.to_string()));
        got.and_then(|()| reader.finish()).map(|()| Some((header, payload)))
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, header, payload) = written(folder.path());
        assert_eq!(read(&path).unwrap(), Some((header, payload)));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove(&path);
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ..) = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            // A damaged magic number cannot be told from a file of another kind or version, which
            // must not be overwritten.
            let kind = match at {
                _ if at < OURS.len() => Kind::BadArgument,
                _ if at < MARK.len() => Kind::VersionMismatch,
                _ => Kind::Corrupt,
            };
            assert_eq!(read(&path).unwrap_err().kind, kind, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(&path).unwrap_err().kind, Kind::Corrupt, "cut at {at}");
        }
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(read(&path).unwrap_err().kind, Kind::Corrupt);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, header, payload) = written(folder.path());
        let mut writer = Writer::create(&path, &Value::Null).unwrap();
        writer.write_all(&[7; 3 << 20]).unwrap();
        assert!(partial(&path).exists());
        let second = Writer::create(&path, &Value::Null).map(drop).unwrap_err();
        assert!(second.message.contains("another run writes it"), "{second}");
        drop(writer);
        assert!(!partial(&path).exists());
        assert_eq!(read(&path).unwrap(), Some((header, payload)));
    }

    #[test]
    fn other_files_are_safe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "years of work").unwrap();
        assert_eq!(Reader::open(&path).map(drop).unwrap_err().kind, Kind::BadArgument);
        assert_eq!(Reader::open(folder.path()).map(drop).unwrap_err().kind, Kind::BadArgument);
        // This folder has the name that an unfinished file would have.
        let path = folder.path().join("c");
        std::fs::write(partial(&path), "years of work").unwrap();
        assert_eq!(Writer::create(&path, &Value::Null).map(drop).unwrap_err().kind, Kind::BadArgument);
        remove(&path);
        assert_eq!(std::fs::read_to_string(partial(&path)).unwrap(), "years of work");
        std::fs::write(partial(&path), &MARK[..20]).unwrap();
        remove(&path);
        assert!(!partial(&path).exists());
    }
}
