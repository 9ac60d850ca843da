//! The files that a script may read: those of the project, and those that the user has named. Token
//! ids can be decoded to text, and both are sent to machines, so that a script that reads any file
//! could disclose it.

use std::path::{Path, PathBuf};

use super::context::Context;
use crate::error::{Error, Result};
use crate::home;
use crate::secret::secret_name;

/// Checks that `function` may read texts and ids of `path`. A link is judged by its target.
///
/// # Errors
/// `bad_argument` for the name of a secret, and for a file that is neither in the project nor named
/// by the user.
pub(crate) fn allowed(context: &Context, function: &str, path: &str) -> Result<()> {
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
    // A missing file is reported by its reader. It may exist on the machine.
    let Ok(target) = given.canonicalize() else { return Ok(()) };
    if let Some(relative) = inside(&target) {
        return if secret_name(&relative) { Err(secret()) } else { Ok(()) };
    }
    if context.stage.as_ref().is_some_and(|stage| stage.made(&target)) {
        return Ok(());
    }
    let folders = context.bounds.allowed.reads.iter().filter_map(|folder| folder.canonicalize().ok());
    if !folders.into_iter().any(|folder| target.starts_with(folder)) && !named(&context.flags, path) {
        let folder = target.parent().unwrap_or(&target).display();
        let why = if given.is_symlink() { "leads out of the project" } else { "is outside of the project" };
        return Err(Error::bad_argument(format!("{function}: {path:?} {why}"))
            .hint(format!("`outlier run --allow-read {folder} SCRIPT` lets scripts read texts and ids there")));
    }
    if secret_name(&target) { Err(secret()) } else { Ok(()) }
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
