//! Suggestions for a misspelt folder name: a user who misspells the folder of a model does not mean
//! a model on the hub.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind};
use crate::home;
use crate::suggest;

const CONFIG: &str = "config.json";
/// What one of which is in the folder of a model.
const WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
/// How many folders deep models are looked for, as in `snapshots/COMMIT`, and in how many folders
/// of one.
const DEPTH: usize = 2;
const MOST: usize = 1000;
/// Shortest name that is taken for the beginning of a longer one, bytes.
const LEAST: usize = 3;

/// A model folder whose path is similar to `id`: in the same folder, in a folder with a similar
/// name, or with this name in another folder here.
pub(crate) fn nearest(id: &str) -> Option<String> {
    let path = home::expanded(id.trim_end_matches('/'));
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().unwrap_or(Path::new(""));
    if let Some(near) = like(parent, name).find(|folder| folder.join(CONFIG).is_file()) {
        return Some(near.display().to_string());
    }
    let above = parent.parent().zip(parent.file_name().and_then(|name| name.to_str()));
    let beside: Vec<PathBuf> = match above {
        Some((above, parent)) => like(above, parent).collect(),
        // Models outside of the project's folder are not searched.
        None if !parent.as_os_str().is_empty() => Vec::new(),
        None => folders(parent),
    };
    let same = beside.into_iter().map(|folder| folder.join(name)).find(|folder| folder.join(CONFIG).is_file());
    same.map(|folder| folder.display().to_string())
}

/// Paths of the folders in `folder` that hold a model, by name, numbers by their size:
/// `checkpoint-500` before `checkpoint-1000`.
pub(crate) fn below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    models(folder, "", DEPTH, &mut found);
    found.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    found
}

fn models(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
    for inner in folders(folder).into_iter().take(MOST) {
        let Some(name) = inner.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let path = format!("{prefix}{name}");
        if inner.join(CONFIG).is_file() && WEIGHTS.iter().any(|weights| inner.join(weights).exists()) {
            found.push(path);
        } else if depth > 1 {
            models(&inner, &format!("{path}/"), depth - 1, found);
        }
    }
}

/// Whether `id` names something in a folder that is here.
fn in_a_folder(id: &str) -> bool {
    let path = home::expanded(id);
    path.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && parent.is_dir())
}

/// The error of a query to the hub for `id`, with the information that there is no such folder, and
/// a suggestion.
pub(crate) fn told(id: &str, error: Error) -> Error {
    if !matches!(error.kind, Kind::NotFound | Kind::Io | Kind::Auth) {
        return error;
    }
    let near = nearest(id);
    if near.is_none() && !in_a_folder(id) {
        return error;
    }
    let model = format!("model \"{id}\": ");
    let problem = error.message.strip_prefix(&model).unwrap_or(&error.message);
    let problem = problem.strip_prefix("no such folder, and ").unwrap_or(problem);
    let told = Error { message: format!("{model}no such folder, and {problem}"), ..error };
    match near {
        Some(near) => told.hint(format!("did you mean the folder \"{near}\"?")),
        None => told,
    }
}

/// Folders in `parent` with similar names, the most similar first.
fn like(parent: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let names: Vec<String> =
        folders(parent).iter().filter_map(|folder| Some(folder.file_name()?.to_str()?.to_string())).collect();
    let near = suggest::close(name, names.iter().map(String::as_str)).map(|near| parent.join(near));
    let begins = names.iter().filter(|other| name.len() >= LEAST && other.starts_with(name));
    let begins: Vec<PathBuf> = begins.map(|other| parent.join(other)).collect();
    near.into_iter().chain(begins)
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let here = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let entries = std::fs::read_dir(here).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| parent.join(entry.file_name())).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_models_are_found_by_names_like_theirs() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path).display().to_string();
        for folder in ["examples/shakespeare-olmoe", "examples/other", "models/qwen3"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for folder in ["examples/shakespeare-olmoe", "models/qwen3"] {
            std::fs::write(at(&format!("{folder}/config.json")), "{}").unwrap();
        }
        for (given, near) in [
            ("examples/shakespear-olmoe", Some("examples/shakespeare-olmoe")),
            ("examples/shakespeare-olmoe-2/", Some("examples/shakespeare-olmoe")),
            ("exmaples/shakespeare-olmoe", Some("examples/shakespeare-olmoe")),
            ("models/qwen", Some("models/qwen3")),
            // A folder without a model is not suggested.
            ("examples/othr", None),
            ("models/zebra", None),
            ("nowhere/at/all", None),
        ] {
            assert_eq!(nearest(&at(given)), near.map(at), "{given}");
        }
    }

    #[test]
    fn what_the_hub_said_stays_known() {
        let asked =
            Error::new(Kind::Io, "model \"src/zebra\": fetching config.json: no answer").hint("is there a network?");
        let told = told("src/zebra", asked);
        assert_eq!(told.message, "model \"src/zebra\": no such folder, and fetching config.json: no answer");
        assert_eq!(told.hint.as_deref(), Some("is there a network?"));
        let other = Error::new(Kind::Io, "model \"nobody-has/zebra\": no answer");
        assert_eq!(super::told("nobody-has/zebra", other.clone()), other);
    }
}
