//! Scripts below a folder.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::progress::interrupt_requested;

/// Folders without scripts.
const ELSEWHERE: &[&str] = &["target", "results", "logs"];
/// The largest number of folders that are searched.
const MAX_FOLDERS: usize = 10_000;

/// The files of a folder, and of the folders in it, whose names end in `ending`, sorted; or the one
/// file at `path`, whatever its name. `what` says what such files are, where there are none.
pub fn files(path: &Path, ending: &str, what: &str) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    // Links may lead to an ancestor, or to the same folder twice.
    let mut seen = HashSet::new();
    while let Some(folder) = folders.pop() {
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        if folder.metadata().is_ok_and(|it| !seen.insert((it.dev(), it.ino()))) {
            continue;
        }
        if seen.len() > MAX_FOLDERS {
            let message = format!("{}: there are more than {MAX_FOLDERS} folders", path.display());
            return Err(Error::bad_argument(message).hint("name a folder that holds scripts and not much else"));
        }
        let reading = |e: std::io::Error| Error::io(format!("reading {}", folder.display()), &e);
        for entry in std::fs::read_dir(&folder).map_err(reading)? {
            let path = entry.map_err(reading)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !ELSEWHERE.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if path.is_file() && path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    match files.is_empty() {
        false => Ok(files),
        true => Err(Error::bad_argument(format!("{}: no file *{ending}", path.display())).hint(what)),
    }
}
