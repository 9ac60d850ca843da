//! Where scripts may write: below `results/` and `logs/` of the project, or anywhere below the project where an option names a
//! place; and below the folders that the user names with `--allow-write`.
//!
//! A path is judged by where it leads: a link that somebody has put into a folder does not take a file out of it.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::context::Context;
use super::modules;
use crate::error::{Error, Result};
use crate::secret::ledger_name;
use crate::terminal::one_line;

/// Where scripts may write.
pub const FOLDERS: [&str; 2] = ["results", "logs"];
/// Longest name of a file or folder, bytes.
const MAX_PART: usize = 255;

/// A file below `results/` or `logs/`, named relative to the project, and where it is.
pub fn below_results(context: &Context, function: &str, path: &str) -> Result<PathBuf> {
    modules::acts(context, function);
    let given = Path::new(path);
    let mut parts = given.components();
    let first = parts.next().map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    let second = parts.next().map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    let wrong =
        |hint: &str| Error::bad_argument(format!("{function}: {path:?} is not below results/ or logs/")).hint(hint);
    if !is_plain(path) || !FOLDERS.contains(&first.as_str()) || second.is_empty() {
        return Err(wrong("name the file results/summary.json, say"));
    }
    let file = context.root.join(given);
    stays(context, &file, &context.root.join(first)).map_err(|error| error.context(function))?;
    Ok(file)
}

/// A file of the program's own making below `results/` or `logs/`: `folder` says which. Its name is known to be right.
pub fn within(context: &Context, function: &str, file: &Path, folder: &str) -> Result<()> {
    modules::acts(context, function);
    stays(context, file, &context.root.join(folder)).map_err(|error| error.context(function))
}

/// A file or folder (`noun`) that an option names: below the project, or below what the user allows.
pub fn in_project(context: &Context, what: &str, noun: &str, path: &str) -> Result<()> {
    let named = path.strip_prefix("./").unwrap_or(path);
    let foreign = Path::new(path).is_absolute() && !path.contains('\0');
    let place = context.root.join(path);
    let fits = is_plain(named) || foreign && stays(context, &place, &context.root).is_ok();
    if !fits {
        return Err(Error::bad_argument(format!("{what} is {path:?}, not a {noun} in the project")).hint(
            "name it relative to the folder the program runs in, without `..` and hidden folders, such as \"results/NAME\"; \
             `outlier run --allow-write DIR SCRIPT` allows others",
        ));
    }
    stays(context, &place, &context.root).map_err(|error| error.context(what))
}

/// Names of files and folders, none of them hidden, none that leads upwards, and each what it looks like: no line breaks, no
/// characters that order a terminal about, no blanks around it.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() <= MAX_PART
            && part.trim() == part
            && !part.contains('\\')
    };
    let visible = one_line(path) == path && !path.contains(char::is_control);
    visible && path.split('/').all(plain) && Path::new(path).components().all(is_name)
}

fn is_name(part: Component) -> bool {
    matches!(part, Component::Normal(_))
}

/// Refuses a file that links lead out of `folder`, which is the project or in it.
fn stays(context: &Context, file: &Path, folder: &Path) -> Result<()> {
    let looking = |path: &Path, e: &std::io::Error| Error::io(format!("looking for {}", path.display()), e);
    let root = real(&context.root).map_err(|e| looking(&context.root, &e))?;
    // Where the folder is if it is no link.
    let home = folder.strip_prefix(&context.root).map_or_else(|_| root.clone(), |below| root.join(below));
    let parent = file.parent().unwrap_or(Path::new(""));
    let landing = real(parent).map_err(|e| looking(parent, &e))?;
    let below = landing.strip_prefix(&root).unwrap_or(Path::new(""));
    if ledger_name(below) || ledger_name(file.strip_prefix(&context.root).unwrap_or(file)) {
        return Err(Error::bad_argument(format!("{} is the program's list of rented machines", file.display()))
            .hint("no name begins with \"gpus.sqlite\": choose another one"));
    }
    let allowed = context.bounds.allowed.writes.iter().filter_map(|folder| real(folder).ok());
    let mut places = allowed.chain([home]);
    match places.any(|place| landing.starts_with(place)) {
        true => Ok(()),
        false => {
            // Where the folder itself is a link, that is what the user may have meant.
            let meant = real(folder).ok().filter(|meant| landing.starts_with(meant)).unwrap_or_else(|| landing.clone());
            let name = folder.display().to_string();
            let name = if name.is_empty() { "the project" } else { &name };
            Err(Error::bad_argument(format!("{} leads out of {name}, to {}", file.display(), landing.display()))
                .hint(format!("if that is meant: `outlier run --allow-write {} SCRIPT`", meant.display())))
        }
    }
}

/// Where a folder is, without links; of one that is not there yet, where its deepest part that is there is, and the rest.
fn real(folder: &Path) -> std::io::Result<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match folder.canonicalize() {
        Err(e) if e.kind() == ErrorKind::NotFound && folder.symlink_metadata().is_err() => {
            let (above, name) = (folder.parent().unwrap_or(Path::new("")), folder.file_name());
            Ok(real(above)?.join(name.ok_or(ErrorKind::NotFound)?))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none() {
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a/./b",
            "./a",
            "../a",
            "a/..",
            ".a",
            "a/.b",
            "a\0b",
            &"x".repeat(256),
            "a\nb",
            "\u{202e}a",
            "a ",
            " a/b",
            "a\\b",
            "a\tb",
        ] {
            assert!(!is_plain(path), "{path:?}");
        }
        assert!(is_plain("a") && is_plain("a b/ü.txt") && is_plain("results/x..y/z"));
    }
}
