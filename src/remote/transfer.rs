//! File transfers to and from a machine with only a shell there: resumed after an interruption,
//! verified, and renamed when complete.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::names::stays_as_it_is;
use super::part::{Claim, Sending, beside, claim};
use super::{Finished, Machine, Output, collect, finish, keep, output, quoted, room};
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::outside;
use crate::progress::{Event, Progress, doze};

const PIECE: usize = 1 << 20;
/// Bytes per progress event.
const STEP: u64 = 8 << 20;

/// Pauses before an interrupted transfer is retried.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];
/// Bytes of a partial file that are copied before it is resumed.
const MOST_COPIED: u64 = 1 << 30;
/// Age in minutes (a day) at which partial files of earlier transfers to the same place are
/// removed.
const OLD_MINUTES: u32 = 24 * 60;

/// The prefix of commands whose messages are parsed.
pub(super) const ENGLISH: &str = "LC_ALL=C; export LC_ALL; ";

/// Retries an operation after temporary errors.
pub fn again<T>(progress: &dyn Progress, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES {
        match work() {
            Err(error) if matches!(error.kind, Kind::Lost | Kind::Corrupt) && !progress.interrupted() => {
                progress.event(Event::Warning(format!("{}: trying again", error.message)));
                doze(pause, || progress.interrupted());
                if progress.interrupted() {
                    return Err(Error::interrupted());
                }
            }
            outcome => return outcome,
        }
    }
    work()
}

/// Copies the file `from` to the path `to` on the machine (`~/` is its home folder), with its
/// executable bit.
pub fn upload(machine: &dyn Machine, from: &Path, to: &str, progress: &dyn Progress) -> Result<()> {
    again(progress, || send(machine, from, to, progress))
}

/// The partial file has its own name, so that simultaneous senders do not disturb each other.
fn send(machine: &dyn Machine, from: &Path, to: &str, progress: &dyn Progress) -> Result<()> {
    let reading = |e: std::io::Error| Error::io(format!("reading {}", from.display()), &e);
    let mut file = outside::open(from).map_err(reading)?;
    let metadata = file.metadata().map_err(reading)?;
    let whole = sha256(&mut file.try_clone().map_err(reading)?, metadata.len()).map_err(reading)?;
    let sending = Sending::new(&machine.name(), to, &whole);
    let (folder, name) = to.rsplit_once('/').unwrap_or((".", to));
    let place = if folder.is_empty() { "/" } else { folder };
    let folder = quoted(place);
    let (path, part) = (operand(to), operand(&format!("{to}.{}.part", sending.name)));
    // The writer of the beginning may still have the file open, and then a program could not be
    // started.
    let own = operand(&format!("{to}.{}.own.part", sending.name));
    let size = format!(
        "mkdir -p -- {folder} || exit; [ -f {part} ] || {{ echo 0; exit; }}; size=$(wc -c < {part}); \
         [ $size -gt {MOST_COPIED} ] || {{ cp -- {part} {own} && mv -f -- {own} {part}; }} || exit; echo $size"
    );
    let mut there: u64 = output(machine, &size)?.trim().parse().unwrap_or(0);
    if there > 0 && there <= metadata.len() {
        let begin = output(machine, &format!("sha256sum < {part}"))?;
        file.rewind().map_err(reading)?;
        if begin.split_whitespace().next() != Some(&sha256(&mut file, there).map_err(reading)?) {
            there = 0;
        }
    } else {
        there = 0;
    }
    file.seek(SeekFrom::Start(there)).map_err(reading)?;
    let total = metadata.len();
    room::check(machine, place, total - there, to)?;
    progress.event(Event::Begin { what: format!("sending {}", name_of(from)), total });
    let redirect = if there == 0 { ">" } else { ">>" };
    let mut source = Counted { inner: file, done: there, told: there, progress };
    let sent = collect(machine, &format!("{ENGLISH}cat {redirect} {part}"), &mut source);
    progress.event(Event::End);
    if sent.is_err() && progress.interrupted() {
        return Err(Error::interrupted());
    }
    check(machine, to, sent?)?;
    let mode = if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0 { "+x" } else { "-x" };
    let old = format!(
        "find {folder} -maxdepth 1 -type f -name {} -mmin +{OLD_MINUTES} -exec rm -f -- {{}} + 2>/dev/null",
        quoted(&format!("{}.*part", literal(name)))
    );
    // An equal file that another sender has put there meanwhile, and may have started, stays.
    let verify = format!(
        "[ \"$(sha256sum < {part} | cut -d' ' -f1)\" = {whole} ] || {{ rm -f -- {part}; exit 9; }}; \
         chmod {mode} {part} && if [ ! -d {path} ] && {{ ln -- {part} {path} || cmp -s -- {part} {path}; }} 2>/dev/null; \
         then chmod {mode} {path} && rm -f -- {part}; else mv -f -- {part} {path}; fi || exit; {old}; true"
    );
    let finished = finish(machine, &verify)?;
    if finished.code == 9 {
        return Err(Error::of(Failure::NotSentWhole { machine: machine.name(), path: to.to_string() }));
    }
    check(machine, to, finished)?;
    sending.done();
    Ok(())
}

/// A path as a word that cannot be taken for an option.
fn operand(path: &str) -> String {
    let plain = path.starts_with('/') || path.starts_with("~/");
    quoted(&if plain { path.to_string() } else { format!("./{path}") })
}

/// A name as a pattern of `find` that matches itself.
fn literal(name: &str) -> String {
    name.chars().flat_map(|c| if "*?[]\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

/// Copies the file `from` on the machine to `to`, whose folder exists. Unless `replaces`, an
/// existing different file stays.
///
/// # Errors
/// `bad_argument` if an existing file may not be replaced.
pub fn download(machine: &dyn Machine, from: &str, to: &Path, replaces: bool, progress: &dyn Progress) -> Result<()> {
    again(progress, || fetch(machine, from, to, replaces, progress))
}

fn fetch(machine: &dyn Machine, from: &str, to: &Path, replaces: bool, progress: &dyn Progress) -> Result<()> {
    let writing = |e: std::io::Error| Error::io(format!("writing {}", to.display()), &e);
    let path = operand(from);
    let facts = finish(machine, &format!("[ -f {path} ] || exit 8; wc -c < {path} && sha256sum < {path}"))?;
    if facts.code == 8 {
        return Err(Error::of(Failure::NoFile { machine: machine.name(), path: from.to_string() }));
    }
    let mut words = facts.out.split_whitespace();
    let total: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let whole = words.next().unwrap_or_default().to_string();
    if !replaces && fs::symlink_metadata(to).is_ok() {
        let here = outside::open(to).and_then(|mut file| sha256(&mut file, u64::MAX));
        let same = here.is_ok_and(|here| here == whole);
        return if same { Ok(()) } else { Err(stays_as_it_is("download", &to.display().to_string())) };
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(writing)?;
    }
    // Held until it is renamed, so that no other run or thread writes the same partial file.
    let Claim { mut file, path: part } = claim(beside(to)).map_err(writing)?;
    let have = file.metadata().map_err(writing)?.len().min(total);
    let same = have > 0 && {
        let there = output(machine, &format!("head -c {have} {path} | sha256sum"))?;
        sha256(&mut file, have).is_ok_and(|here| there.split_whitespace().next() == Some(&here))
    };
    let have = if same { have } else { 0 };
    let folder = to.parent().unwrap_or(Path::new(""));
    disk::check_free_space(folder, total - have, &to.display().to_string())
        .map_err(|e| e.hint("remove files here, or run in a folder on a larger disk"))?;
    file.set_len(have).and_then(|()| file.seek(SeekFrom::Start(have))).map_err(writing)?;
    progress.event(Event::Begin { what: format!("fetching {}", name_of(to)), total });
    let (mut done, mut told, mut said) = (have, have, Vec::new());
    let ended = machine.run(&format!("tail -c +{} {path}", have + 1), &mut std::io::empty(), &mut |piece| {
        let bytes = match piece {
            Output::Out(bytes) => bytes,
            Output::Err(bytes) => return keep(&mut said, bytes),
        };
        if progress.interrupted() {
            return Err(Error::interrupted());
        }
        done += bytes.len() as u64;
        if done > total {
            let (machine, path) = (machine.name(), from.to_string());
            return Err(Error::of(Failure::LongerThanAnnounced { machine, path, bytes: total }));
        }
        file.write_all(bytes).map_err(writing)?;
        if done >= told + STEP {
            told = done;
            progress.event(Event::Step { done, bytes: done, tokens: 0, seconds: 0.0 });
        }
        Ok(())
    });
    progress.event(Event::End);
    let said = String::from_utf8_lossy(&said).into_owned();
    check(machine, from, Finished { code: ended?, out: String::new(), err: said })?;
    file.sync_all().map_err(writing)?;
    let arrived = file.rewind().and_then(|()| sha256(&mut file, u64::MAX)).map_err(writing)?;
    if arrived != whole {
        let _ = fs::remove_file(&part);
        return Err(Error::of(Failure::NotFetchedWhole { machine: machine.name(), path: from.to_string() }));
    }
    disk::rename(&part, to).map_err(writing)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn check(machine: &dyn Machine, path: &str, finished: Finished) -> Result<()> {
    if finished.code == 0 {
        return Ok(());
    }
    let (machine, path) = (machine.name(), path.to_string());
    Err(Error::of(match finished.err.contains("No space left") || finished.err.contains("quota exceeded") {
        true => Failure::DiskFull { machine, what: path },
        false => Failure::NotCopied { machine, path, complaint: finished.complaint().to_string() },
    }))
}

/// SHA-256 of the first `count` bytes, in hexadecimal.
pub(super) fn sha256(from: &mut impl Read, count: u64) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut from.take(count), &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

struct Counted<'a> {
    inner: File,
    done: u64,
    told: u64,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.progress.interrupted() {
            return Err(std::io::Error::other("interrupted"));
        }
        let limit = buffer.len().min(PIECE);
        let count = self.inner.read(&mut buffer[..limit])?;
        self.done += count as u64;
        if self.done >= self.told + STEP {
            self.told = self.done;
            self.progress.event(Event::Step { done: self.done, bytes: self.done, tokens: 0, seconds: 0.0 });
        }
        Ok(count)
    }
}
