//! Files to and from a machine, by nothing but a shell there: continued where an earlier attempt ended, verified, and
//! under their name only when they are whole.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Finished, Machine, Output, finish, output, quoted};
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};

const PIECE: usize = 1 << 20;
/// A progress event per so many bytes.
const STEP: u64 = 8 << 20;

/// Copies the file `from` to the path `to` on the machine (`~/` is its home folder), keeping whether it is executable.
pub fn upload(machine: &dyn Machine, from: &Path, to: &str, progress: &dyn Progress) -> Result<()> {
    let reading = |e: std::io::Error| Error::io(format!("reading {}", from.display()), &e);
    let mut file = File::open(from).map_err(reading)?;
    let metadata = file.metadata().map_err(reading)?;
    let whole = sha256(&mut file.try_clone().map_err(reading)?, metadata.len()).map_err(reading)?;
    let (path, part) = (quoted(to), quoted(&format!("{to}.part")));
    let size = format!("mkdir -p \"$(dirname {path})\" && if [ -f {part} ]; then wc -c < {part}; else echo 0; fi");
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
    progress.event(Event::Begin { what: format!("sending {}", name_of(from)), total });
    let redirect = if there == 0 { ">" } else { ">>" };
    let mut source = Counted { inner: file, done: there, told: there, progress };
    let mut said = Vec::new();
    let code = machine.run(&format!("cat {redirect} {part}"), &mut source, &mut |piece| {
        let (Output::Out(bytes) | Output::Err(bytes)) = piece;
        said.extend_from_slice(bytes);
    });
    progress.event(Event::End);
    if code.is_err() && progress.interrupted() {
        return Err(Error::interrupted());
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    check(machine, to, Finished { code: code?, out: String::new(), err: said })?;
    let mode = if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0 { "+x" } else { "-x" };
    let finish_up = format!("sha256sum < {part} && chmod {mode} {part} && mv -f {part} {path}");
    let verify =
        format!("[ \"$(sha256sum < {part} | cut -d' ' -f1)\" = {whole} ] || {{ rm -f {part}; exit 9; }}; {finish_up}");
    let finished = finish(machine, &verify)?;
    if finished.code == 9 {
        return Err(Error::corrupt(format!("{}: {to} did not arrive as it was sent", machine.name())).hint("try again"));
    }
    check(machine, to, finished)
}

/// Copies the file `from` on the machine to `to`.
pub fn download(machine: &dyn Machine, from: &str, to: &Path, progress: &dyn Progress) -> Result<()> {
    let writing = |e: std::io::Error| Error::io(format!("writing {}", to.display()), &e);
    let path = quoted(from);
    let facts = finish(machine, &format!("[ -f {path} ] || exit 8; wc -c < {path} && sha256sum < {path}"))?;
    if facts.code == 8 {
        return Err(Error::not_found(format!("{}: there is no file {from}", machine.name()))
            .hint("paths are relative to the project's folder on the machine"));
    }
    let mut words = facts.out.split_whitespace();
    let total: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let whole = words.next().unwrap_or_default().to_string();
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(writing)?;
    }
    let part = part(to);
    let have = fs::metadata(&part).map_or(0, |metadata| metadata.len()).min(total);
    let begin = || -> std::io::Result<String> { sha256(&mut File::open(&part)?, have) };
    let same = have > 0 && {
        let there = output(machine, &format!("head -c {have} {path} | sha256sum"))?;
        begin().is_ok_and(|here| there.split_whitespace().next() == Some(&here))
    };
    let have = if same { have } else { 0 };
    let mut file = File::options().create(true).write(true).truncate(false).open(&part).map_err(writing)?;
    file.set_len(have).and_then(|()| file.seek(SeekFrom::Start(have))).map_err(writing)?;
    progress.event(Event::Begin { what: format!("fetching {}", name_of(to)), total });
    let (mut done, mut told, mut failure, mut said) = (have, have, None, Vec::new());
    let code = machine.run(&format!("tail -c +{} {path}", have + 1), &mut std::io::empty(), &mut |piece| match piece {
        Output::Out(bytes) => {
            failure = failure.take().or(file.write_all(bytes).err());
            done += bytes.len() as u64;
            if done >= told + STEP {
                told = done;
                progress.event(Event::Step { done, bytes: done, tokens: 0 });
            }
        }
        Output::Err(bytes) => said.extend_from_slice(bytes),
    });
    progress.event(Event::End);
    if let Some(e) = failure {
        return Err(writing(e));
    }
    check(
        machine,
        from,
        Finished { code: code?, out: String::new(), err: String::from_utf8_lossy(&said).into_owned() },
    )?;
    file.sync_all().map_err(writing)?;
    let arrived = sha256(&mut File::open(&part).map_err(writing)?, u64::MAX).map_err(writing)?;
    if arrived != whole {
        let _ = fs::remove_file(&part);
        return Err(Error::corrupt(format!("{}: {from} did not arrive as it is there", machine.name()))
            .hint("is something still writing it? try again"));
    }
    disk::rename(&part, to).map_err(writing)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn part(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn check(machine: &dyn Machine, path: &str, finished: Finished) -> Result<()> {
    if finished.code == 0 {
        return Ok(());
    }
    let name = machine.name();
    if finished.err.contains("No space left") || finished.err.contains("quota exceeded") {
        return Err(Error::new(Kind::Io, format!("{name}: the disk is full, {path} does not fit"))
            .hint("ask for a larger disk (`disk_gb`), or remove files there with run_command"));
    }
    Err(Error::new(Kind::Service, format!("{name}: copying {path}: {}", finished.complaint())))
}

/// SHA-256 of the first `count` bytes, in hexadecimal.
pub fn sha256(from: &mut impl Read, count: u64) -> std::io::Result<String> {
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
            self.progress.event(Event::Step { done: self.done, bytes: self.done, tokens: 0 });
        }
        Ok(count)
    }
}
