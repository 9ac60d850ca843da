//! Downloads a file of the hub into the cache: many ranges in parallel, written in order, verified
//! by its hash, and flushed before it is renamed.
//!
//! `blobs/<etag>.incomplete` always contains the first bytes of the file and nothing else, so that
//! a later attempt, of this program or of the Python package, can continue. If nobody continues it,
//! the next download of the same repository removes it after two weeks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::layout::Snapshot;
use crate::disk;
use crate::error::{Error, Result};
use crate::hub::http::client::Http;
use crate::hub::http::ranges::{Limits, Ranges};
use crate::hub::http::resolve::RemoteFile;
use crate::hub::weights::source::{Announcement, FileRange, Tag};
use crate::progress::{Event, Progress};

/// Bytes per write.
const WRITE: u64 = 4 << 20;
/// Time between two progress reports.
const REPORT: Duration = Duration::from_millis(500);
const MORE_ROOM: &str = "free space, set HF_HOME to a larger disk, or use stream: true";
/// The only tag of a reader that reads one file sequentially.
const ALL: Tag = 0;

/// Progress in bytes over all files of a download.
pub(crate) struct Tally<'a> {
    pub progress: &'a dyn Progress,
    pub done: u64,
    reported: Instant,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, done: 0, reported: Instant::now() }
    }

    pub(crate) fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        if self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            self.progress.event(Event::Step { done: self.done, bytes: self.done, tokens: 0, seconds: 0.0 });
        }
        if self.progress.interrupted() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// Downloads `file` into the snapshot unless it exists. An existing blob is read once and verified
/// by its hash.
///
/// # Errors
/// `corrupt` if the bytes do not have the announced hash; they are removed. After any other error
/// the received bytes stay for the next attempt.
pub(crate) fn download(http: &Arc<Http>, file: &Arc<RemoteFile>, snapshot: &Snapshot, tally: &mut Tally) -> Result<()> {
    let blob = snapshot.blob(&file.hash);
    let _lock = snapshot.lock(&file.hash, &file.name, tally.progress)?;
    if std::fs::metadata(&blob).is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.bytes) {
        let before = tally.done;
        if file.hash.is_of_file(&blob, |bytes| tally.add(bytes))? {
            return snapshot.link(&file.name, &file.hash);
        }
        tally.done = before;
        let text = format!("{} is damaged: fetching {} again", blob.display(), file.name);
        tally.progress.event(Event::Warning(text));
    }
    let path = snapshot.incomplete(&file.hash);
    let found = fill(http, file, &path, tally)?;
    if found != file.hash.digits() {
        let _ = std::fs::remove_file(&path);
        return Err(file.damaged(&found, "what was downloaded has been removed; run again"));
    }
    disk::rename(&path, &blob).map_err(|e| Error::io(format!("writing {}", blob.display()), &e))?;
    snapshot.link(&file.name, &file.hash)
}

/// Checks that the missing parts of `files` fit on the disk of the cache.
///
/// # Errors
/// `io` if less is free. Nothing is downloaded then.
pub(crate) fn fits(files: &[Arc<RemoteFile>], snapshot: &Snapshot, what: &str) -> Result<()> {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let missing = |file: &Arc<RemoteFile>| {
        let arrived = length(&snapshot.blob(&file.hash)).max(length(&snapshot.incomplete(&file.hash)));
        file.bytes.saturating_sub(arrived)
    };
    let Some(first) = files.first() else { return Ok(()) };
    let blob = snapshot.blob(&first.hash);
    let folder = blob.parent().unwrap_or(Path::new(""));
    disk::check_free_space(folder, files.iter().map(missing).sum(), what).map_err(|e| e.hint(MORE_ROOM))
}

/// Completes the file at `path`, flushes it, and returns the hexadecimal hash of all its bytes.
fn fill(http: &Arc<Http>, file: &Arc<RemoteFile>, path: &Path, tally: &mut Tally) -> Result<String> {
    let writing = |e: std::io::Error| {
        let error = Error::io(format!("writing {}", path.display()), &e);
        match e.kind() {
            std::io::ErrorKind::StorageFull => error.hint(MORE_ROOM),
            _ => error,
        }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(writing)?;
    }
    let output = File::options().create(true).read(true).append(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let mut output = output.map_err(writing)?;
    let mut hash = file.hash.hasher(file.bytes);
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
        hash.update(buffer);
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
            hash.update(buffer);
            tally.add(buffer.len() as u64)?;
        }
        Ok(())
    };
    let outcome = rest();
    ranges.forget(&[ALL]);
    outcome?;
    output.sync_all().map_err(writing)?;
    Ok(hash.digits())
}

fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(WRITE as usize).map(move |start| start..end.min(start + WRITE))
}
