//! Syncs the project's files with a machine: only files with different contents, small ones in one
//! stream, large ones one by one so that they can be resumed. Nothing outside the project is sent,
//! and some files inside it never are.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::failure::Failure;
use super::names::{
    accepted, asked_for, inside, leads_out, matches, project, stays, stays_as_it_is, to_receive, to_send,
};
use super::transfer::{ENGLISH, again, sha256};
use super::{Finished, Machine, collect, download, output, quoted, room, upload, verbatim};
use crate::error::{Error, Kind, Result};
use crate::outside;
use crate::progress::{Event, Progress};
use crate::threads;

/// Size from which on a file is sent separately.
const LARGE: u64 = 8 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SyncReport {
    pub files_sent: u64,
    pub files_received: u64,
    /// Bytes of the transferred files.
    pub bytes: u64,
    /// Number of equal files on both sides.
    pub unchanged: u64,
}

/// Files that must not be touched, there and here.
pub struct Rules<'a> {
    /// Rejects names of files in the folder there that may not be read or written.
    pub there: &'a dyn Fn(&[String]) -> Result<()>,
    /// True if a file here may be replaced by a different one.
    pub replaces: &'a dyn Fn(&Path) -> bool,
}

/// The two ends of a sync.
struct Ends<'a> {
    machine: &'a dyn Machine,
    root: &'a Path,
    remote_root: &'a str,
    rules: &'a Rules<'a>,
    progress: &'a dyn Progress,
}

/// Sends `up` (files, folders, or names with `*`, relative to the project `root`) to the folder
/// `remote_root` on the machine, then fetches `down` from there.
///
/// # Errors
/// Paths that leave the project, violations of `rules` and a full disk are reported before any
/// transfer in that direction.
pub fn sync(
    machine: &dyn Machine,
    root: &Path,
    remote_root: &str,
    [up, down]: [&[String]; 2],
    rules: &Rules,
    progress: &dyn Progress,
) -> Result<SyncReport> {
    let mut report = SyncReport::default();
    let ends = Ends { machine, root, remote_root, rules, progress };
    if !up.is_empty() {
        send(&ends, up, &mut report)?;
    }
    if !down.is_empty() {
        receive(&ends, down, &mut report)?;
    }
    Ok(report)
}

fn send(ends: &Ends, up: &[String], report: &mut SyncReport) -> Result<()> {
    let Ends { machine, root, remote_root, rules, progress } = *ends;
    let mut files = Vec::new();
    for path in up {
        inside("sync", path)?;
        let before = files.len();
        collect_files(root, path, &mut files)?;
        if files.len() == before {
            return Err(Error::of(Failure::NothingToSend(path.clone())));
        }
    }
    files.sort();
    files.dedup();
    (rules.there)(&files)?;
    let there = again(progress, || hashes(machine, remote_root, &files))?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for name in files {
        // The target of a link is checked when it is opened.
        let path = to_send("sync", root, &name)?;
        let reading = |e: std::io::Error| Error::io(format!("reading {}", path.display()), &e);
        let mut file = outside::open(&path).map_err(reading)?;
        let size = file.metadata().map_err(reading)?.len();
        if there.get(&name) == Some(&sha256(&mut file, size).map_err(reading)?) {
            report.unchanged += 1;
            continue;
        }
        report.files_sent += 1;
        report.bytes += size;
        if size >= LARGE { &mut large } else { &mut small }.push((path, name));
    }
    // All files are checked before the first transfer. Partial copies that are resumed count.
    let begun = format!("find {} -type f -name '*.part' 2>/dev/null | head -n 1", quoted(remote_root));
    match room::check(machine, remote_root, report.bytes, &up.join(", ")) {
        Err(error) if error.kind == Kind::Io && output(machine, &begun)?.is_empty() => return Err(error),
        Err(error) if error.kind != Kind::Io => return Err(error),
        _ => (),
    }
    for (path, name) in large {
        upload(machine, &path, &format!("{remote_root}/{name}"), progress)?;
    }
    if small.is_empty() { Ok(()) } else { again(progress, || stream(machine, remote_root, &small)) }
}

/// One stream for all small files (path and name): written by a thread, read by the command.
fn stream(machine: &dyn Machine, remote_root: &str, small: &[(PathBuf, String)]) -> Result<()> {
    let (mut from, to) = std::os::unix::net::UnixStream::pair().map_err(|e| Error::io("sending files", &e))?;
    let unpack = format!("{ENGLISH}mkdir -p -- {0} && tar -xf - -C {0}", quoted(remote_root));
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packing = threads::start_in(scope, move || -> std::io::Result<()> {
            let mut archive = tar::Builder::new(to);
            for (path, name) in small {
                pack(&mut archive, path, name)?;
            }
            archive.into_inner()?.flush()
        });
        let packing = packing.map_err(|e| Error::no_thread("sending files", &e))?;
        let finished = collect(machine, &unpack, &mut from);
        drop(from);
        Ok::<_, Error>((packing.join().expect("no panic in packing"), finished))
    })?;
    // If the other end has stopped reading, it says why.
    if let Err(error) = packed.as_ref()
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(Error::io("sending files", error));
    }
    let Finished { code, out, err } = unpacked?;
    if code != 0 {
        let said = format!("{out}{err}");
        let (complaint, disk_is_full) = (said.trim().to_string(), said.contains("No space left"));
        return Err(Error::of(Failure::NotUnpacked { machine: machine.name(), complaint, disk_is_full }));
    }
    packed.map_err(|e| Error::io("sending files", &e))
}

/// Adds a file with the length that it has now. If it grows meanwhile, its first bytes are sent.
///
/// # Errors
/// The file has become shorter.
fn pack(archive: &mut tar::Builder<impl Write>, path: &Path, name: &str) -> std::io::Result<()> {
    let file = outside::open(path)?;
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    append(archive, &mut header, name, file)
}

/// Adds as many bytes as the header says. Others would be taken for headers of more files.
fn append(
    archive: &mut tar::Builder<impl Write>,
    header: &mut tar::Header,
    name: &str,
    from: impl Read,
) -> std::io::Result<()> {
    let bytes = header.size()?;
    let mut from = from.take(bytes);
    archive.append_data(header, name, &mut from)?;
    match from.limit() {
        0 => Ok(()),
        _ => Err(std::io::Error::other(format!("{name} has become shorter while it was sent: try again"))),
    }
}

fn receive(ends: &Ends, down: &[String], report: &mut SyncReport) -> Result<()> {
    let Ends { machine, root, remote_root, rules, progress } = *ends;
    let mut names = Vec::new();
    for path in down {
        inside("sync", path)?;
        accepted("sync", path)?;
        // The shell there expands `*`. The part before it is a name and not an option.
        let pattern: String = path
            .split('*')
            .map(|text| if text.is_empty() { String::new() } else { verbatim(text) })
            .collect::<Vec<_>>()
            .join("*");
        let list = format!(
            "cd {} && find ./{pattern} -type f ! -name '*.part' -print0 2>/dev/null || true",
            quoted(remote_root)
        );
        let found = again(progress, || output(machine, &list))?;
        let mut any = false;
        for name in found.split_terminator('\0').map(|line| line.trim_start_matches("./")) {
            any = true;
            // A machine cannot cause writes of files that were not requested.
            if !asked_for(path, name) {
                let (machine, name, path) = (machine.name(), name.to_string(), path.clone());
                return Err(Error::of(Failure::NotAskedFor { machine, name, path }));
            }
            match accepted("sync", name) {
                Ok(()) => names.push(name.to_string()),
                Err(error) => progress.event(Event::Warning(format!("{}: left out", error.message))),
            }
        }
        if !any {
            return Err(Error::of(Failure::NothingThere { machine: machine.name(), path: path.clone() }));
        }
    }
    names.sort();
    names.dedup();
    (rules.there)(&names)?;
    let there = again(progress, || hashes(machine, remote_root, &names))?;
    let mut wanted = Vec::new();
    for name in names {
        let path = to_receive("sync", root, &name)?;
        let here = outside::open(&path).and_then(|mut file| sha256(&mut file, u64::MAX)).ok();
        if here.is_some() && here.as_ref() == there.get(&name) {
            report.unchanged += 1;
            continue;
        }
        // All files are checked before the first one is written.
        if fs::symlink_metadata(&path).is_ok() && !(rules.replaces)(&path) {
            return Err(stays_as_it_is("sync", &name));
        }
        wanted.push((name, path));
    }
    for (name, path) in wanted {
        download(machine, &format!("{remote_root}/{name}"), &path, true, progress)?;
        report.files_received += 1;
        report.bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
    }
    Ok(())
}

/// The files that match `path`, relative to `root`.
fn collect_files(root: &Path, path: &str, files: &mut Vec<String>) -> Result<()> {
    let clean: PathBuf = Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect();
    let mut candidates = vec![PathBuf::new()];
    for part in clean.components() {
        let part = part.as_os_str().to_string_lossy().into_owned();
        let mut next = Vec::new();
        for folder in candidates {
            if !part.contains('*') {
                next.push(folder.join(&part));
                continue;
            }
            let entries = fs::read_dir(root.join(&folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            next.extend(names.filter(|name| matches(&part, name)).map(|name| folder.join(name)));
        }
        candidates = next;
    }
    let project = project(root)?;
    candidates.into_iter().try_for_each(|found| walk(root, &project, &found, &mut Vec::new(), files))
}

/// Adds the files at or below `relative`. `above` are the folders of the walk, by their real paths.
fn walk(root: &Path, project: &Path, relative: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<String>) -> Result<()> {
    let path = root.join(relative);
    // It does not exist, or is a link without a target.
    if stays(relative) || !path.exists() {
        return Ok(());
    }
    let Some(name) = relative.to_str().map(str::to_string) else {
        return Err(Error::of(Failure::NameIsNoText(relative.display().to_string())));
    };
    let reading = |e: std::io::Error| Error::io(format!("reading {}", path.display()), &e);
    // A link is judged by its target.
    let real = fs::canonicalize(&path).map_err(reading)?;
    let within = real.strip_prefix(project).map_err(|_| leads_out("sync", &name))?;
    if stays(within) || above.contains(&real) {
        return Ok(());
    }
    if real.is_file() {
        files.push(name);
    } else if real.is_dir() {
        above.push(real);
        for entry in fs::read_dir(&path).map_err(reading)? {
            walk(root, project, &relative.join(entry.map_err(reading)?.file_name()), above, files)?;
        }
        above.pop();
    }
    Ok(())
}

/// SHA-256 of those of `names` that exist in `remote_root`.
fn hashes(machine: &dyn Machine, remote_root: &str, names: &[String]) -> Result<HashMap<String, String>> {
    let list = names.join("\0");
    let command = format!("cd {} 2>/dev/null && xargs -0 sha256sum -- 2>/dev/null", quoted(remote_root));
    // The exit code only says that some do not exist.
    let out = collect(machine, &command, &mut list.as_bytes())?.out;
    let line = |line: &str| line.split_once("  ").map(|(hash, name)| (name.to_string(), hash.to_string()));
    Ok(out.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Here;

    struct Silent;

    impl Progress for Silent {
        fn event(&self, _: Event) {}

        fn interrupted(&self) -> bool {
            false
        }
    }

    fn ends<'a>(root: &'a Path, there: &'a str, rules: &'a Rules) -> Ends<'a> {
        Ends { machine: &Here, root, remote_root: there, rules, progress: &Silent }
    }

    #[test]
    fn a_file_that_changes_while_it_is_sent_is_not_taken_for_other_files() {
        let told = |bytes: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes);
            header
        };
        let (mut archive, inner) = (tar::Builder::new(Vec::new()), {
            let mut inner = tar::Builder::new(vec![b'x'; 512]);
            inner.append_data(&mut told(4), "smuggled", &b"evil"[..]).unwrap();
            inner.into_inner().unwrap()
        });
        append(&mut archive, &mut told(512), "grown", &inner[..]).unwrap();
        append(&mut archive, &mut told(2), "next", &b"ab"[..]).unwrap();
        assert!(append(&mut archive, &mut told(9), "shorter", &b"abc"[..]).is_err());
        let packed = archive.into_inner().unwrap();
        let mut archive = tar::Archive::new(&packed[..]);
        let names = archive.entries().unwrap().map_while(|entry| Some(entry.ok()?.path().ok()?.display().to_string()));
        assert_eq!(names.take(2).collect::<Vec<_>>(), ["grown", "next"]);
    }

    #[test]
    fn names_of_any_bytes_are_told_apart() {
        use std::os::unix::ffi::OsStrExt;
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let there = there.path().to_str().unwrap();
        fs::create_dir_all(format!("{there}/out")).unwrap();
        for name in ["a", "b\nc", "-x", "d'e\"f", "g h"] {
            fs::write(format!("{there}/out/{name}"), name).unwrap();
        }
        let rules = Rules { there: &|_| Ok(()), replaces: &|_| false };
        let (ends, mut report) = (ends(here.path(), there, &rules), SyncReport::default());
        receive(&ends, &["out".to_string()], &mut report).unwrap();
        assert_eq!(report.files_received, 4);
        assert!(!here.path().join("out/b\nc").exists(), "a name with a line break is left out");
        fs::create_dir(here.path().join("up")).unwrap();
        fs::write(here.path().join("up/-n"), "n").unwrap();
        send(&ends, &["up".to_string()], &mut report).unwrap();
        assert_eq!(fs::read_to_string(format!("{there}/up/-n")).unwrap(), "n");
        fs::write(here.path().join("up").join(std::ffi::OsStr::from_bytes(b"\xff")), "n").unwrap();
        let error = send(&ends, &["up".to_string()], &mut report).unwrap_err();
        assert!(error.message.contains("is not UTF-8"), "{}", error.message);
    }
}
