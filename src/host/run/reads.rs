//! The files that a script may read: those of the project, and those that the user has named. Token
//! ids can be decoded to text, and both are sent to machines, so that a script that reads any file
//! could disclose it.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::context::Context;
use crate::error::{Error, Result};
use crate::home;
use crate::secret::secret_name;

/// The longest path that the system takes, in bytes, and the most links that it follows in a row.
const LONGEST: usize = 4096;
const MOST_LINKS: usize = 40;

/// Checks that `function` may read texts and ids of `path`. A link is judged by its target.
///
/// # Errors
/// `bad_argument` for the name of a secret, and for a file that is neither in the project nor named
/// by the user, whether there is one or not.
pub(crate) fn allowed(context: &Context, function: &str, path: &str) -> Result<()> {
    judged(context, function, path, |_| false)
}

/// The same for a file that is read on a machine if it is not here.
pub(crate) fn allowed_or_there(context: &Context, function: &str, path: &str) -> Result<()> {
    judged(context, function, path, |given| !given.exists())
}

fn judged(context: &Context, function: &str, path: &str, is_there: impl Fn(&Path) -> bool) -> Result<()> {
    if path.len() > LONGEST {
        let message = format!("{function}: a path of {} bytes, and the system takes {LONGEST}", path.len());
        return Err(Error::bad_argument(message).hint("a file is named, not quoted"));
    }
    let given = &home::expanded(path);
    let secret = || {
        Error::bad_argument(format!("{function}: {path:?} has a name that secrets have"))
            .hint("keys, tokens and passwords are read by no script; a text of such a name needs another one")
    };
    // The folders above the project may have any name: only the part of an absolute path inside the
    // project counts.
    let roots = roots(context);
    let inside = |path: &Path| within(&roots, path);
    if secret_name(&inside(given).unwrap_or(given.to_path_buf())) {
        return Err(secret());
    }
    if is_there(given) {
        return Ok(());
    }
    // What is missing, or may not be looked at, is judged by where it would be. Otherwise a script
    // learnt which files there are outside of the project.
    let target = landing(given);
    if let Some(relative) = inside(&target) {
        return if secret_name(&relative) { Err(secret()) } else { Ok(()) };
    }
    if context.stage.as_ref().is_some_and(|stage| stage.made(&target)) {
        return Ok(());
    }
    let folders = context.bounds.allowed.reads.iter().filter_map(|folder| folder.canonicalize().ok());
    if !folders.into_iter().any(|folder| target.starts_with(folder)) && !named(&context.flags, path) {
        // A link of the project tells where it leads. Of others nothing is told.
        let place = lexical(given);
        let (why, place) = match inside(&place) {
            Some(_) => ("leads out of the project", &target),
            None => ("is outside of the project", &place),
        };
        let folder = place.parent().unwrap_or(place).display();
        return Err(Error::bad_argument(format!("{function}: {path:?} {why}"))
            .hint(format!("`outlier run --allow-read {folder} SCRIPT` lets scripts read texts and ids there")));
    }
    if secret_name(&target) { Err(secret()) } else { Ok(()) }
}

/// The place of a file after following links, whether it exists or not.
fn landing(path: &Path) -> PathBuf {
    let (mut place, mut behind, mut links) = (lexical(path), Vec::new(), 0);
    loop {
        // `..` behind a link leads from where that leads, which only the system follows.
        let given = if behind.is_empty() && links == 0 { path } else { &*place };
        if let Ok(real) = given.canonicalize() {
            return behind.into_iter().rev().fold(real, |place, name: OsString| place.join(name));
        }
        if let Some(target) = place.read_link().ok().filter(|_| links < MOST_LINKS) {
            links += 1;
            place = lexical(&place.parent().unwrap_or(&place).join(target));
            continue;
        }
        match place.file_name().map(OsStr::to_os_string) {
            Some(name) => behind.push(name),
            None => return lexical(path),
        }
        place.pop();
    }
}

/// An absolute path without `.` and `..`, by the names alone.
fn lexical(path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    for part in std::env::current_dir().unwrap_or_default().join(path).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            Component::CurDir => (),
            part => place.push(part),
        }
    }
    place
}

/// True if a file of the project, after following links, is in it and is not named like a secret.
pub(crate) fn inside(context: &Context, path: &Path) -> bool {
    let target = path.canonicalize().ok().and_then(|target| within(&roots(context), &target));
    target.is_some_and(|target| !secret_name(&target))
}

/// The project, and the results folder of a test.
fn roots(context: &Context) -> Vec<PathBuf> {
    let folders = [Path::new(""), &context.root, &context.library].into_iter();
    folders.filter_map(|root| Path::new(".").join(root).canonicalize().ok()).collect()
}

/// The path relative to the root that contains it.
fn within(roots: &[PathBuf], path: &Path) -> Option<PathBuf> {
    roots.iter().find_map(|root| path.strip_prefix(root).ok().map(Path::to_path_buf))
}

/// True if the user wrote this path, exactly, among the flags of the script.
fn named(flags: &[String], path: &str) -> bool {
    flags.iter().any(|word| word == path || word.split_once('=').is_some_and(|(_, value)| value == path))
}
