//! The standard library inside the program: modules and data files. The program needs no other
//! file. Its callers decide whether a file of the project replaces one of these.

use std::collections::BTreeSet;
use std::path::Path;

/// Embedded modules: name and text.
const EMBEDDED: &[(&str, &str)] = &[
    ("answers", include_str!("../../../stdlib/answers.rhai")),
    ("compare", include_str!("../../../stdlib/compare.rhai")),
    ("deploy", include_str!("../../../stdlib/deploy.rhai")),
    ("dettmers", include_str!("../../../stdlib/dettmers.rhai")),
    ("figures", include_str!("../../../stdlib/figures.rhai")),
    ("measured", include_str!("../../../stdlib/measured.rhai")),
    ("interventions", include_str!("../../../stdlib/interventions.rhai")),
    ("reports", include_str!("../../../stdlib/reports.rhai")),
    ("thresholds", include_str!("../../../stdlib/thresholds.rhai")),
];
/// Embedded data files.
const DATA: &[(&str, &str)] = &[
    ("first_text.txt", include_str!("../../../stdlib/first_text.txt")),
    ("published.json", include_str!("../../../stdlib/published.json")),
    ("report.html", include_str!("../../../stdlib/report.html")),
];
/// The prefix of embedded files in messages.
const EMBEDDED_PREFIX: &str = "<embedded>/stdlib/";

/// The embedded modules: name and text.
pub fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    EMBEDDED.iter().copied()
}

/// Names of the embedded modules.
pub fn modules() -> impl Iterator<Item = &'static str> + Clone {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The text of an embedded module.
pub fn module(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(module, _)| *module == name).map(|(_, text)| *text)
}

/// The name of an embedded module's file in messages.
pub fn file(module: &str) -> String {
    format!("{EMBEDDED_PREFIX}{module}.rhai")
}

/// The text of an embedded module, by its file's name in messages.
pub fn source(file: &str) -> Option<&'static str> {
    let name = file.strip_prefix(EMBEDDED_PREFIX)?;
    module(name.strip_suffix(".rhai").unwrap_or(name))
}

/// The text of an embedded data file.
pub fn data(name: &str) -> Option<&'static str> {
    DATA.iter().find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// Names of the embedded data files.
pub fn data_names() -> impl Iterator<Item = &'static str> + Clone {
    DATA.iter().map(|(name, _)| *name)
}

/// True for the name of an embedded module's file in messages.
pub fn is_embedded(file: &str) -> bool {
    file.starts_with(EMBEDDED_PREFIX)
}

/// The location of a module in words.
pub fn place(file: &str) -> String {
    if is_embedded(file) { "the one inside the program".to_string() } else { file.to_string() }
}

/// Names of a project's modules: the embedded ones, and the files of its `stdlib/`.
pub fn known(project: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(project.join("stdlib")).into_iter().flatten().flatten();
    let own = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".rhai")?.to_string()));
    own.chain(modules().map(str::to_string)).collect()
}
