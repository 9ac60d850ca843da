//! Scripts near a path that is none: `outlier run sweep`, `outlier run scripts/swep.rhai`.

use std::path::{Path, PathBuf};

use crate::suggest;

/// Where the scripts of a project are.
const FOLDERS: [&str; 3] = ["scripts", "examples", ""];

/// The script that is likely meant by a word or path, if there is one.
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
