//! Where scripts may write: below `results/` and `logs/` of the project, anywhere below the project
//! if an option names a place, and below the folders that the user allows with `--allow-write`; and
//! what they may replace there.
//!
//! A path is judged after following `~` and links, so that a link does not lead out of a folder.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::context::Context;
use crate::error::{Error, Result};
use crate::home;
use crate::secret::{ledger_name, secret_name};
use crate::terminal::one_line;

/// The folders in which scripts may write.
pub(crate) const FOLDERS: [&str; 2] = ["results", "logs"];
/// Folders with outputs of runs, which new outputs may replace.
const MADE: [&str; 3] = ["results", "logs", "checkpoints"];
/// Longest name of a file or folder in bytes.
const MAX_PART: usize = 255;

/// The path for a file that a script writes: below `results/` or `logs/` of the project, or below a
/// folder that the user allows.
pub(crate) fn to_write(context: &Context, function: &str, path: &str) -> Result<PathBuf> {
    context.acts(function);
    let given = relative(context, path);
    let mut parts = given.iter().map(|part| part.to_string_lossy());
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let file = context.root.join(&given);
    let named = |error: Error| error.context(function);
    if is_plain(&given.to_string_lossy()) && FOLDERS.contains(&&*first) && second.is_some() {
        return stays(context, &file, &context.root.join(&*first)).map(|()| file).map_err(named);
    }
    if is_visible(path) && !given.as_os_str().is_empty() && !path.ends_with('/') && is_allowed(context, &file) {
        return Ok(file);
    }
    let message = format!("{function}: {path:?} is not below results/ or logs/");
    Err(Error::bad_argument(message).hint(
        "name the file results/summary.json, say; `outlier run --allow-write DIR SCRIPT` lets scripts write elsewhere, though \
         neither hidden files nor those with names of secrets",
    ))
}

/// A script's path with `~` expanded; relative to the project if it is inside.
pub(crate) fn relative(context: &Context, path: &str) -> PathBuf {
    let given = home::expanded(path);
    let below = |given: &Path| {
        let landing = real(given.parent()?).ok()?.join(given.file_name()?);
        landing.strip_prefix(real(&context.root).ok()?).map(Path::to_path_buf).ok()
    };
    let inside = if given.is_absolute() { below(&given) } else { None };
    inside.unwrap_or(given)
}

/// True if the user allows writing this file after following links: it is in one of the allowed
/// folders, its names are plain, and it is not named like a secret.
pub(crate) fn is_allowed(context: &Context, file: &Path) -> bool {
    let parent = file.parent().unwrap_or(Path::new(""));
    let (Ok(landing), Some(name)) = (real(parent), file.file_name()) else { return false };
    is_below_allowed(context, &landing.join(name))
}

/// The same for a path without links.
fn is_below_allowed(context: &Context, landing: &Path) -> bool {
    let allowed = context.bounds.allowed.writes.iter().filter_map(|folder| real(folder).ok());
    let mut below = allowed.filter_map(|folder| landing.strip_prefix(&folder).map(Path::to_path_buf).ok());
    let plain = |below: &Path| is_plain(&below.to_string_lossy()) && !secret_name(below) && !ledger_name(below);
    below.any(|below| below.as_os_str().is_empty() || plain(&below))
}

/// True if an existing file may be replaced by a received one or by `out`: in `results/`, `logs/`
/// and `checkpoints/`, and where the user allows writing.
pub(crate) fn may_replace(context: &Context, file: &Path) -> bool {
    let parent = file.parent().unwrap_or(Path::new(""));
    let (Ok(root), Ok(landing), Some(name)) = (real(&context.root), real(parent), file.file_name()) else {
        return false;
    };
    MADE.iter().any(|folder| landing.starts_with(root.join(folder))) || is_below_allowed(context, &landing.join(name))
}

/// Checks a file of the program itself in `results/` or `logs/` (`folder`). Its name is known to be
/// valid.
pub(crate) fn within(context: &Context, function: &str, file: &Path, folder: &str) -> Result<()> {
    context.acts(function);
    stays(context, file, &context.root.join(folder)).map_err(|error| error.context(function))
}

/// Checks a file or folder (`noun`) in an option: below the project, or where the user allows it.
pub(crate) fn in_project(context: &Context, what: &str, noun: &str, path: &str) -> Result<()> {
    let named = path.strip_prefix("./").unwrap_or(path);
    let foreign = Path::new(path).is_absolute() && is_visible(path);
    let place = context.root.join(path);
    let inside = |path: &Path| relative(context, &path.to_string_lossy()).to_str().is_some_and(is_plain);
    let fits = is_plain(named) || foreign && (inside(&place) || is_allowed(context, &place));
    if !fits {
        return Err(Error::bad_argument(format!("{what} is {path:?}, not a {noun} in the project")).hint(
            "name it relative to the folder the program runs in, without `..` and hidden folders, such as \"results/NAME\"; \
             `outlier run --allow-write DIR SCRIPT` allows others, though no hidden ones",
        ));
    }
    stays(context, &place, &context.root).map_err(|error| error.context(what))
}

/// True for names that are not hidden, do not lead upwards, and are what they look like: no line
/// breaks, no control characters, no spaces at the ends.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() <= MAX_PART
            && part.trim() == part
            && !part.contains('\\')
    };
    is_visible(path) && path.split('/').all(plain) && Path::new(path).components().all(is_name)
}

fn is_visible(path: &str) -> bool {
    one_line(path) == path && !path.contains(char::is_control)
}

fn is_name(part: Component) -> bool {
    matches!(part, Component::Normal(_))
}

/// Rejects a file that links lead out of `folder`, which is the project or in it.
fn stays(context: &Context, file: &Path, folder: &Path) -> Result<()> {
    let looking = |path: &Path, e: &std::io::Error| Error::io(format!("looking for {}", path.display()), e);
    let root = real(&context.root).map_err(|e| looking(&context.root, &e))?;
    // The location of the folder if it is not a link.
    let home = folder.strip_prefix(&context.root).map_or_else(|_| root.clone(), |below| root.join(below));
    let parent = file.parent().unwrap_or(Path::new(""));
    let landing = real(parent).map_err(|e| looking(parent, &e))?;
    refuse_ledger(
        landing.strip_prefix(&root).unwrap_or(Path::new("")),
        file.strip_prefix(&context.root).unwrap_or(file),
    )?;
    let name = file.file_name().unwrap_or_default();
    // A folder that links to a place where the user allows writing is accepted.
    let linked = || real(folder).is_ok_and(|to| landing.starts_with(&to) && is_below_allowed(context, &to));
    match landing.starts_with(home) || is_below_allowed(context, &landing.join(name)) || linked() {
        true => Ok(()),
        false => {
            // If the folder itself is a link, the user may have meant its target.
            let meant = real(folder).ok().filter(|meant| landing.starts_with(meant)).unwrap_or_else(|| landing.clone());
            let name = folder.display().to_string();
            let name = if name.is_empty() { "the project" } else { &name };
            Err(Error::bad_argument(format!("{} leads out of {name}, to {}", file.display(), landing.display()))
                .hint(format!("if that is meant: `outlier run --allow-write {} SCRIPT`", meant.display())))
        }
    }
}

/// Only the program writes its ledger of machines.
fn refuse_ledger(landing: &Path, file: &Path) -> Result<()> {
    match ledger_name(landing) || ledger_name(file) {
        true => Err(Error::bad_argument(format!("{} is the program's list of rented machines", file.display()))
            .hint("no name begins with \"gpus.sqlite\": choose another one")),
        false => Ok(()),
    }
}

/// The real path of a folder without links. For a missing folder, the real path of its deepest
/// existing ancestor and the rest.
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
