//! A result folder: `results/<experiment>/`, written file by file with the final results last, and read back.
//!
//! Where `final_analysis_results.json` exists, the analysis is complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::analysis::{self, Analysis, FINAL, SCHEMA_VERSION};
use super::{atomic, features_csv, stats_file};
use crate::error::{Error, Result};
use crate::record::{Activations, Bootstrap, Detection};

pub const STATS: &str = "activations.stats";

/// A stored analysis.
#[derive(Clone, Debug)]
pub struct Stored {
    pub folder: PathBuf,
    pub activations: Arc<Activations>,
    pub found: Detection,
    pub intervals: Option<Bootstrap>,
    pub settings: Map<String, Value>,
}

/// A name that is one folder below `results/`, or a few.
pub fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.split('/').any(|part| part.is_empty() || part.starts_with('.'))
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if bad {
        return Err(Error::bad_argument(format!("\"{name}\" is not a name for results"))
            .hint("use letters, digits, '-', '_' and '.', such as \"olmoe_1b_7b\""));
    }
    Ok(())
}

/// Writes all files of an analysis below `root` and returns its folder.
pub fn save(root: &Path, acts: &Activations, analysis: &Analysis) -> Result<PathBuf> {
    check_name(&analysis.name)?;
    let folder = root.join(&analysis.name);
    let files = analysis::files(acts, analysis)?;
    // An earlier analysis of this name is complete no longer once its first file is replaced.
    match std::fs::remove_file(folder.join(FINAL)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(format!("replacing {}", folder.join(FINAL).display()), &e));
        }
        _ => (),
    }
    remove_batches(&folder);
    stats_file::write(&folder.join(STATS), acts)?;
    atomic::write(
        &folder.join(features_csv::FILE),
        &features_csv::encode(&analysis.found, analysis.intervals.as_ref())?,
    )?;
    for (name, value) in files {
        let mut text = serde_json::to_vec_pretty(&value).expect("results are JSON");
        text.push(b'\n');
        atomic::write(&folder.join(name), &text)?;
    }
    Ok(folder)
}

/// Batch files of an earlier, longer analysis would be taken for part of this one.
fn remove_batches(folder: &Path) {
    let mut sequence = 0;
    while std::fs::remove_file(folder.join(analysis::batch_file(sequence))).is_ok() {
        sequence += 1;
    }
}

pub fn load(folder: &Path) -> Result<Stored> {
    let path = folder.join(FINAL);
    let reading = format!("reading {}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::io(&reading, &e).hint("give the folder of a finished analysis, such as \"results/olmoe_1b_7b\"")
    })?;
    let corrupt = |problem: String| {
        Error::corrupt(format!("{reading}: {problem}")).hint("the file is damaged, or written by another version")
    };
    let mut json: Value = serde_json::from_str(&text).map_err(|e| corrupt(format!("not valid JSON: {e}")))?;
    if json["schema_version"] != SCHEMA_VERSION {
        let found = &json["schema_version"];
        return Err(corrupt(format!("schema version {found}, this program reads {SCHEMA_VERSION}")));
    }
    let mut take = |key: &str| json.get_mut(key).map(Value::take).unwrap_or(Value::Null);
    let mut activations = stats_file::read(&folder.join(STATS))?;
    activations.measurements =
        serde_json::from_value(take("measurements")).map_err(|e| corrupt(format!("`measurements`: {e}")))?;
    Ok(Stored {
        folder: folder.to_path_buf(),
        found: serde_json::from_value(take("pooled")).map_err(|e| corrupt(format!("`pooled`: {e}")))?,
        intervals: serde_json::from_value(take("intervals")).map_err(|e| corrupt(format!("`intervals`: {e}")))?,
        settings: serde_json::from_value(take("settings")).map_err(|e| corrupt(format!("`settings`: {e}")))?,
        activations: Arc::new(activations),
    })
}

/// Folders with results are looked for so deep below `results/`.
const DEPTH: usize = 3;

/// Names of all finished analyses below `root`, sorted; whether they can be read is not asked.
pub fn list(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Error::io(format!("reading {}", folder.display()), &e))?,
        };
        for entry in entries.filter_map(|entry| entry.ok()) {
            let path = entry.path();
            if path.join(FINAL).is_file() {
                names.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
            }
            if path.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
            }
        }
    }
    names.sort();
    Ok(names)
}
