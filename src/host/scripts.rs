//! Script files: their text, and suggestions for a wrong path, as in `outlier run sweep` and
//! `outlier run scripts/swep.rhai`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::diagnostics::diagnostic::Diagnostic;
use super::language::script_text::text_of;
use crate::error::Error;
use crate::suggest;

/// The folders of a project's scripts.
const FOLDERS: [&str; 3] = ["scripts", "examples", ""];

/// The text of a script file.
pub fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    text_of(path).map_err(|e| match e.kind() {
        // The script exists, but its content is invalid.
        ErrorKind::InvalidData => Box::new(Diagnostic::from_error(
            Error::bad_argument(format!("reading {}: {e}", path.display()))
                .hint("save it as UTF-8; `iconv -f latin1 -t utf-8 OLD > NEW` turns a file in Latin-1 into one"),
        )),
        _ => {
            let message = format!("reading {}: {e}", path.display());
            let near = near(path).filter(|near| near != path);
            let hint = near.map_or("give the path of a script, such as scripts/quickstart.rhai".to_string(), |near| {
                format!("did you mean {}?", near.display())
            });
            Box::new(Diagnostic::usage(message, &hint))
        }
    })
}

/// The script that the user probably means by a word or path, if there is one.
pub fn near(given: &Path) -> Option<PathBuf> {
    let stem = given.file_stem()?.to_str()?;
    let folder = given.parent().unwrap_or(Path::new(""));
    let others = FOLDERS.map(Path::new).into_iter().filter(|other| *other != folder);
    let scripts: Vec<PathBuf> = [folder].into_iter().chain(others).flat_map(scripts_in).collect();
    fn stem_of(script: &Path) -> &str {
        script.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }
    if let Some(same) = scripts.iter().find(|script| stem_of(script) == stem) {
        return Some(same.clone());
    }
    let near = suggest::close(stem, scripts.iter().map(|script| stem_of(script))).map(str::to_string);
    let part = suggest::containing(stem, scripts.iter().map(|script| stem_of(script)));
    let meant = near.or_else(|| part.first().filter(|_| part.len() == 1).map(|one| one.to_string()))?;
    scripts.into_iter().find(|script| stem_of(script) == meant)
}

fn scripts_in(folder: &Path) -> Vec<PathBuf> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(here).into_iter().flatten().flatten();
    let mut scripts: Vec<PathBuf> = entries
        .map(|entry| folder.join(entry.file_name()))
        .filter(|path| path.extension().is_some_and(|end| end == "rhai") && path.is_file())
        .collect();
    scripts.sort();
    scripts
}
