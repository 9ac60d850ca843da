//! The project's files on a machine and back: only what differs by content, small files in one stream, large ones so that
//! they continue after a break. Nothing outside the project is sent, and some things inside it never are.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::transfer::sha256;
use super::{Machine, Output, download, output, quoted, upload};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// From this size on a file travels by itself.
const LARGE: u64 = 8 << 20;
/// Never sent, whatever is asked for: secrets, what machines produce, what is built.
const NEVER: &[&str] = &[".env", ".git", "results", "target", ".ssh"];

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SyncReport {
    pub files_sent: u64,
    pub files_received: u64,
    /// That differed and so travelled.
    pub bytes: u64,
    /// Files that were the same on both sides.
    pub unchanged: u64,
}

/// Brings `up` (files, folders, or names with `*`, relative to the project `root`) to the folder `remote_root` on the
/// machine, then `down` from there to the same places here.
pub fn sync(
    machine: &dyn Machine,
    root: &Path,
    remote_root: &str,
    up: &[String],
    down: &[String],
    progress: &dyn Progress,
) -> Result<SyncReport> {
    let mut report = SyncReport::default();
    if !up.is_empty() {
        send(machine, root, remote_root, up, progress, &mut report)?;
    }
    if !down.is_empty() {
        receive(machine, root, remote_root, down, progress, &mut report)?;
    }
    Ok(report)
}

fn send(
    machine: &dyn Machine,
    root: &Path,
    remote_root: &str,
    up: &[String],
    progress: &dyn Progress,
    report: &mut SyncReport,
) -> Result<()> {
    let mut files = Vec::new();
    for path in up {
        inside(path)?;
        let before = files.len();
        collect(root, path, &mut files)?;
        if files.len() == before {
            return Err(Error::not_found(format!("sync: there is nothing to send at \"{path}\"")).hint(
                "paths are relative to the folder the program runs in; .env, results/, target/ and keys are never sent",
            ));
        }
    }
    files.sort();
    files.dedup();
    let there = hashes(machine, remote_root, &files)?;
    let mut small = Vec::new();
    for name in files {
        let path = root.join(&name);
        let reading = |e: std::io::Error| Error::io(format!("reading {}", path.display()), &e);
        let mut file = File::open(&path).map_err(reading)?;
        let size = file.metadata().map_err(reading)?.len();
        if there.get(&name) == Some(&sha256(&mut file, size).map_err(reading)?) {
            report.unchanged += 1;
            continue;
        }
        report.files_sent += 1;
        report.bytes += size;
        if size >= LARGE {
            upload(machine, &path, &format!("{remote_root}/{name}"), progress)?;
        } else {
            small.push(name);
        }
    }
    if small.is_empty() {
        return Ok(());
    }
    // One stream for all small files: written by a thread, read by the command.
    let (mut from, to) = std::os::unix::net::UnixStream::pair().map_err(|e| Error::io("sending files", &e))?;
    let unpack = format!("mkdir -p {0} && tar -xf - -C {0}", quoted(remote_root));
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packing = scope.spawn(move || -> std::io::Result<()> {
            let mut archive = tar::Builder::new(to);
            for name in &small {
                archive.append_path_with_name(root.join(name), name)?;
            }
            archive.into_inner()?.flush()
        });
        let mut said = Vec::new();
        let code = machine.run(&unpack, &mut from, &mut |piece| {
            let (Output::Out(bytes) | Output::Err(bytes)) = piece;
            said.extend_from_slice(bytes);
        });
        drop(from);
        (packing.join().expect("no panic in packing"), code.map(|code| (code, said)))
    });
    let (code, said) = unpacked?;
    if code != 0 {
        let said = String::from_utf8_lossy(&said);
        let full = said.contains("No space left");
        let hint = if full {
            "the machine's disk is full: ask for a larger one (`disk_gb`)"
        } else {
            "is tar installed there?"
        };
        let message = format!("{}: unpacking files: {}", machine.name(), said.trim());
        return Err(Error::new(if full { Kind::Io } else { Kind::Service }, message).hint(hint));
    }
    packed.map_err(|e| Error::io("sending files", &e))
}

fn receive(
    machine: &dyn Machine,
    root: &Path,
    remote_root: &str,
    down: &[String],
    progress: &dyn Progress,
    report: &mut SyncReport,
) -> Result<()> {
    let mut names = Vec::new();
    for path in down {
        inside(path)?;
        // The shell there expands `*`; names with line breaks are not ours.
        let pattern: String = path
            .split('*')
            .map(|text| if text.is_empty() { String::new() } else { quoted(text) })
            .collect::<Vec<_>>()
            .join("*");
        let list = format!("cd {} && find {pattern} -type f ! -name '*.part' 2>/dev/null || true", quoted(remote_root));
        let found = output(machine, &list)?;
        let before = names.len();
        names.extend(found.lines().map(|line| line.trim_start_matches("./").to_string()));
        if names.len() == before {
            return Err(Error::not_found(format!("sync: {} has nothing at \"{path}\"", machine.name()))
                .hint("paths are relative to the project's folder on the machine"));
        }
    }
    names.sort();
    names.dedup();
    let there = hashes(machine, remote_root, &names)?;
    for name in names {
        inside(&name)?;
        let path = root.join(&name);
        let here = File::open(&path).and_then(|mut file| sha256(&mut file, u64::MAX)).ok();
        if here.is_some() && here.as_ref() == there.get(&name) {
            report.unchanged += 1;
            continue;
        }
        download(machine, &format!("{remote_root}/{name}"), &path, progress)?;
        report.files_received += 1;
        report.bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
    }
    Ok(())
}

/// Refuses what leads out of the project.
fn inside(path: &str) -> Result<()> {
    let parts = Path::new(path).components();
    let mut parts = parts.filter(|part| !matches!(part, Component::CurDir)).peekable();
    if parts.peek().is_none() || parts.any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::bad_argument(format!("sync: \"{path}\" is not inside the project"))
            .hint("only files below the folder the program runs in travel: name them relative to it"));
    }
    Ok(())
}

fn never(name: &str) -> bool {
    let key = |name: &str| name.starts_with("id_") || name.ends_with(".pem") || name.starts_with(".env");
    Path::new(name).components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        NEVER.contains(&&*part) || key(&part)
    })
}

/// The files that `path` names, relative to `root`.
fn collect(root: &Path, path: &str, files: &mut Vec<String>) -> Result<()> {
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
    candidates.into_iter().try_for_each(|found| walk(root, &found, files))
}

fn walk(root: &Path, relative: &Path, files: &mut Vec<String>) -> Result<()> {
    let name = relative.display().to_string();
    if never(&name) {
        return Ok(());
    }
    let path = root.join(relative);
    let reading = |e: std::io::Error| Error::io(format!("reading {}", path.display()), &e);
    let Ok(metadata) = fs::metadata(&path) else { return Ok(()) };
    // A link may lead anywhere.
    let project = fs::canonicalize(if root.as_os_str().is_empty() { Path::new(".") } else { root }).map_err(reading)?;
    if !fs::canonicalize(&path).map_err(reading)?.starts_with(&project) {
        return Err(Error::bad_argument(format!("sync: \"{name}\" is a link that leads out of the project"))
            .hint("copy what it leads to into the project"));
    }
    if metadata.is_file() {
        files.push(name);
        return Ok(());
    }
    for entry in fs::read_dir(&path).map_err(reading)? {
        walk(root, &relative.join(entry.map_err(reading)?.file_name()), files)?;
    }
    Ok(())
}

/// `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, rest)) => name.strip_prefix(begin).is_some_and(|name| {
            (0..=name.len()).filter(|i| name.is_char_boundary(*i)).any(|i| matches(rest, &name[i..]))
        }),
    }
}

/// SHA-256 of those of `names` that exist below `remote_root`.
fn hashes(machine: &dyn Machine, remote_root: &str, names: &[String]) -> Result<HashMap<String, String>> {
    let list = names.join("\0");
    let command = format!("cd {} 2>/dev/null && xargs -0 sha256sum -- 2>/dev/null", quoted(remote_root));
    let mut out = Vec::new();
    // The exit code only says that some do not exist.
    machine.run(&command, &mut list.as_bytes(), &mut |piece| {
        if let Output::Out(bytes) = piece {
            out.extend_from_slice(bytes);
        }
    })?;
    let out = String::from_utf8_lossy(&out);
    let line = |line: &str| line.split_once("  ").map(|(hash, name)| (name.to_string(), hash.to_string()));
    Ok(out.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        assert!(matches("*.rhai", "sweep.rhai") && matches("0*_*", "01_olmoe") && matches("*", ""));
        assert!(!matches("*.rhai", "sweep.rs") && !matches("a*b", "a") && !matches("ab", "abc"));
    }

    #[test]
    fn nothing_leads_out_of_the_project() {
        for path in ["../x", "/etc/passwd", "a/../../b", "", "."] {
            assert!(inside(path).is_err(), "{path}");
        }
        assert!(inside("./scripts/a.rhai").is_ok());
        for name in [".env", "sub/.env", ".git/config", "results/x", "keys/id_ed25519", "a.pem", "target/x"] {
            assert!(never(name), "{name}");
        }
        assert!(!never("scripts/identity.rhai"));
    }
}
