//! A large file of the hub into the cache: many ranges at once, written in order, checked against its SHA-256.
//!
//! `blobs/<etag>.incomplete` always holds the first bytes of the file and no others, so that a later attempt, of this program
//! or of the Python package, can go on where this one ended.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::cache::Snapshot;
use super::http::Http;
use super::ranges::{Limits, Ranges};
use super::resolve::RemoteFile;
use super::source::{Announcement, FileRange, Tag};
use crate::disk;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Bytes written at once.
const WRITE: u64 = 4 << 20;
/// Between two reports.
const REPORT: Duration = Duration::from_millis(500);
/// The only tag of a reader that reads one file from front to back.
const ALL: Tag = 0;

/// Bytes of all files of one download, for those who watch.
pub struct Tally<'a> {
    pub progress: &'a dyn Progress,
    pub done: u64,
    reported: Instant,
}

impl<'a> Tally<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, done: 0, reported: Instant::now() }
    }

    pub fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        if self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            self.progress.event(Event::Step { done: self.done, bytes: self.done, tokens: 0 });
        }
        if self.progress.interrupted() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// Downloads `file` into the snapshot unless it is there.
///
/// # Errors
/// `corrupt` when the bytes do not have the announced SHA-256; they are removed. After any other error what has arrived
/// stays for the next attempt.
pub fn download(http: &Arc<Http>, file: &Arc<RemoteFile>, snapshot: &Snapshot, tally: &mut Tally) -> Result<()> {
    let blob = snapshot.blob(&file.etag);
    let _lock = snapshot.lock(&file.etag, &file.name, tally.progress)?;
    if std::fs::metadata(&blob).is_ok_and(|metadata| metadata.len() == file.bytes) {
        tally.add(file.bytes)?;
        return snapshot.link(&file.name, &file.etag);
    }
    let path = snapshot.incomplete(&file.etag);
    let hash = fill(http, file, &path, tally)?;
    if file.announced_sha256().is_some_and(|announced| announced != hash) {
        let _ = std::fs::remove_file(&path);
        return Err(Error::corrupt(format!(
            "{}: the bytes have the SHA-256 {hash}, the hub announces {}",
            file.doing(),
            file.etag
        ))
        .hint("what was downloaded has been removed; run again"));
    }
    disk::rename(&path, &blob).map_err(|e| Error::io(format!("writing {}", blob.display()), &e))?;
    snapshot.link(&file.name, &file.etag)
}

/// Completes the file at `path` and returns the SHA-256 of all its bytes.
fn fill(http: &Arc<Http>, file: &Arc<RemoteFile>, path: &Path, tally: &mut Tally) -> Result<String> {
    let writing = |e: std::io::Error| {
        let error = Error::io(format!("writing {}", path.display()), &e);
        match e.kind() {
            std::io::ErrorKind::StorageFull => {
                error.hint("free space, set HF_HOME to a larger disk, or use stream: true")
            }
            _ => error,
        }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(writing)?;
    }
    let mut output = File::options().create(true).read(true).append(true).open(path).map_err(writing)?;
    let mut hash = Sha256::new();
    let mut have = output.metadata().map_err(writing)?.len();
    if have > file.bytes {
        output.set_len(0).map_err(writing)?;
        have = 0;
    }
    let mut buffer = vec![0u8; WRITE.min(file.bytes) as usize];
    output.seek(SeekFrom::Start(0)).map_err(writing)?;
    for part in parts(0..have) {
        let buffer = &mut buffer[..(part.end - part.start) as usize];
        output.read_exact(buffer).map_err(writing)?;
        hash.update(&buffer);
        tally.add(buffer.len() as u64)?;
    }
    let ranges = Ranges::new(http.clone(), vec![file.clone()], Limits::DOWNLOAD);
    let missing = vec![FileRange { file: 0, range: have..file.bytes }];
    ranges.expect(ALL, Announcement { order: 0, max_gap: 0, ranges: missing });
    let mut rest = || -> Result<()> {
        for part in parts(have..file.bytes) {
            let buffer = &mut buffer[..(part.end - part.start) as usize];
            ranges.read(0, part.start, buffer)?;
            output.write_all(buffer).map_err(writing)?;
            hash.update(&buffer);
            tally.add(buffer.len() as u64)?;
        }
        Ok(())
    };
    let outcome = rest();
    ranges.forget(&[ALL]);
    outcome?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(WRITE as usize).map(move |start| start..end.min(start + WRITE))
}
