//! A result folder, `results/<experiment>/`, is written, replaced and read as a whole.
//!
//! If `final_analysis_results.json` exists, the analysis is complete, and its `record` identifies
//! the `activations.stats` from which it was computed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::agreement::{self, Settled};
use super::analysis::{self, Analysis, SCHEMA_VERSION};
use super::names::{FINAL, STATS};
use super::replace::{self, Replacement};
use super::{features_csv, stats_file};
use crate::error::{Error, Kind, Result};
use crate::outside::{self, complaint, json};
use crate::progress::Progress;
use crate::record::{Activations, Bootstrap, Detection, Measurements};
use crate::secret::ledger_name;
use crate::{stats, suggest};

/// The greatest length of the name of an analysis. The hidden files beside its folder have longer
/// names.
const MAX_NAME: usize = 160;
/// The number of analyses that an error lists.
const MOST_NAMED: usize = 8;
/// The largest accepted size of the final file, in bytes: enough for 100,000 sequences of a model
/// of 48 layers.
const MAX_FINAL: u64 = 1 << 30;

/// A stored analysis.
#[derive(Clone, Debug)]
pub struct Stored {
    pub folder: PathBuf,
    pub activations: Arc<Activations>,
    pub found: Arc<Detection>,
    pub intervals: Option<Arc<Bootstrap>>,
    pub settings: Map<String, Value>,
    /// What is to be told of the file: how answers in it differ from those that the record gives,
    /// which are the ones here; and that it does not say which record it was made from.
    pub changed: Option<String>,
}

/// Checks that a name denotes one folder below `results/`, or a few nested ones.
pub fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > MAX_NAME
        || name.split('/').any(|part| part.is_empty() || part.starts_with('.'))
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if bad {
        return Err(Error::bad_argument(format!("\"{name}\" is not a name for results"))
            .hint("use letters, digits, '-', '_' and '.', such as \"olmoe_1b_7b\""));
    }
    if ledger_name(name.as_ref()) {
        return Err(Error::bad_argument(format!("\"{name}\" is not a name for results"))
            .hint("gpus.sqlite is the program's list of rented machines: choose another name"));
    }
    Ok(())
}

/// An analysis that has been saved.
pub struct Saved {
    pub folder: PathBuf,
    /// If another run saved an analysis of the same name while this one was at work, the time at
    /// which it did so. That analysis has been replaced.
    pub replaced: Option<SystemTime>,
}

/// Writes all files of an analysis below `root`. The earlier analysis of this name stays until the
/// new one is complete, and other files in its folder are kept. The call waits for any run that is
/// saving the same name. `began` is the time at which this run started.
///
/// # Errors
/// `bad_argument` if the record does not give these findings or intervals; `corrupt` if the record
/// contradicts its shape, or if the written files cannot be read back; `io` if writing fails. The
/// earlier analysis is then unchanged.
pub fn save(
    root: &Path,
    acts: &Activations,
    analysis: &Analysis,
    began: SystemTime,
    progress: &dyn Progress,
) -> Result<Saved> {
    check_name(&analysis.name)?;
    stats::check_whole(acts)?;
    agreement::check(acts, analysis)?;
    let record = stats_file::encode(acts)?;
    let seal = agreement::seal_of_new(analysis)?;
    let mark =
        serde_json::json!({ "file": STATS, "bytes": record.len(), "sha256": sha256(&record), "answers_sha256": seal });
    let mut files = vec![
        (STATS.to_string(), record),
        (features_csv::FILE.to_string(), features_csv::encode(&analysis.found, analysis.intervals.as_ref())?),
    ];
    for (name, value) in analysis::files(acts, analysis, mark)? {
        let mut text = serde_json::to_vec_pretty(&value).expect("results are JSON");
        text.push(b'\n');
        files.push((name, text));
    }
    let replacement = Replacement::begin(root, &analysis.name, progress)?;
    let replaced = replacement.saved_meanwhile(began);
    for (name, data) in files {
        replacement.add(&name, &data)?;
    }
    // The new files are loaded once before they replace an earlier analysis.
    let staged = replacement.staged();
    let unlike = |problem: String| {
        let name = root.join(&analysis.name);
        Error::corrupt(format!("saving {}: what was written cannot be read back: {problem}", name.display()))
            .hint("the earlier analysis of this name, if there was one, stays; this is a fault of the program")
    };
    let again = read_text(&staged.join(FINAL)).and_then(|text| stored(staged, &text));
    if let Some(changed) = again.map_err(|error| unlike(error.message))?.changed {
        return Err(unlike(changed));
    }
    replacement.finish()?;
    Ok(Saved { folder: root.join(&analysis.name), replaced })
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The part of the final file that is read first.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    schema_version: json::Part<{ json::SMALL }>,
}

/// The parts of the final file that are read. All others are skipped and take no memory.
#[derive(Deserialize)]
struct Final {
    #[serde(deserialize_with = "pooled")]
    pooled: Detection,
    #[serde(default, deserialize_with = "intervals")]
    intervals: Option<Bootstrap>,
    #[serde(deserialize_with = "settings")]
    settings: Map<String, Value>,
    #[serde(deserialize_with = "measurements")]
    measurements: Measurements,
    /// The length and hash of the record. Older versions of the program did not write them.
    #[serde(default, deserialize_with = "record")]
    record: Option<Mark>,
}

/// The largest number of bytes of an experiment's own settings, which scripts write.
const SETTINGS: usize = 1 << 20;

/// Parses one part of the final file. An error names the part.
fn part<'de, T: Deserialize<'de>, D: Deserializer<'de>>(key: &str, from: D) -> std::result::Result<T, D::Error> {
    T::deserialize(from).map_err(|e| D::Error::custom(format!("`{key}`: {}", complaint(e))))
}

fn pooled<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Detection, D::Error> {
    part("pooled", from)
}

fn intervals<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Bootstrap>, D::Error> {
    part("intervals", from)
}

fn settings<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Map<String, Value>, D::Error> {
    match part::<json::Part<SETTINGS>, D>("settings", from)? {
        json::Part(Value::Object(map)) => Ok(map),
        json::Part(other) => Err(D::Error::custom(format!("`settings`: {} and no map", json::shown(&other)))),
    }
}

fn measurements<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Measurements, D::Error> {
    part("measurements", from)
}

fn record<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Mark>, D::Error> {
    part("record", from)
}

#[derive(Deserialize)]
struct Mark {
    sha256: String,
    /// The hash of findings and intervals. Older versions of the program did not write it.
    answers_sha256: Option<String>,
}

/// The number of attempts to read an analysis that is being replaced meanwhile.
const LOOKS: usize = 50;

/// Loads a stored analysis.
///
/// # Errors
/// `not_found` if there is no finished analysis, `corrupt` if it is damaged or if its files belong
/// to different runs. Answers that the record does not give are no error: `changed` describes them.
pub fn load(folder: &Path) -> Result<Stored> {
    let mut text = read_final(folder)?;
    for _ in 0..LOOKS {
        match stored(folder, &text) {
            Ok(stored) => return Ok(stored),
            Err(error) => match read_final(folder) {
                // The record belongs to another final file, which was saved while this one was
                // read.
                Ok(again) if again != text => text = again,
                _ => return Err(error),
            },
        }
    }
    stored(folder, &text)
}

/// The error for a `folder` that is not a finished analysis below `root`. It suggests those that
/// may be meant.
pub fn missing(root: &Path, folder: &Path, error: Error) -> Error {
    if error.kind != Kind::NotFound || folder.join(FINAL).is_file() {
        return error;
    }
    let names = list(root).unwrap_or_default();
    let name = folder.strip_prefix(root).unwrap_or(folder).display().to_string();
    let meant = suggest::meant(&name, names.iter().map(String::as_str));
    let hint = match (meant, names.len()) {
        (Some(meant), _) => meant,
        (None, 0) => format!("nothing is stored in {}: save_results stores an analysis", root.display()),
        (None, 1..=MOST_NAMED) => format!("stored are {}", names.join(", ")),
        (None, count) => format!("stored are {} and {} more", names[..MOST_NAMED].join(", "), count - MOST_NAMED),
    };
    error.hint(hint)
}

/// Returns whether a finished analysis is there.
pub fn exists(folder: &Path) -> bool {
    let there = || folder.join(FINAL).is_file();
    there() || {
        recover(folder);
        there()
    }
}

/// Repairs `folder` after a run that was killed. That run may have saved this folder, or one that
/// contains it.
fn recover(folder: &Path) {
    folder.ancestors().take(DEPTH).filter(|folder| folder.file_name().is_some()).for_each(replace::recover);
}

fn read_final(folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join(FINAL);
    match path.exists() {
        true => replace::recover(folder),
        false => recover(folder),
    }
    read_text(&path)
}

fn read_text(path: &Path) -> Result<Vec<u8>> {
    outside::read(path, MAX_FINAL).map(outside::without_bom).map_err(|e| {
        outside::unreadable(path, &e, "give the folder of a finished analysis, such as \"results/olmoe_1b_7b\"")
    })
}

fn stored(folder: &Path, text: &[u8]) -> Result<Stored> {
    let reading = format!("reading {}", folder.join(FINAL).display());
    let corrupt = |problem: String| {
        Error::corrupt(format!("{reading}: {problem}")).hint("the file is damaged, or written by another version")
    };
    let damaged = |e: serde_json::Error| match serde_json::from_slice::<IgnoredAny>(text) {
        Err(e) => corrupt(format!("not valid JSON: {}", complaint(e))),
        Ok(_) => corrupt(complaint(e)),
    };
    let Version { schema_version: json::Part(version) } = serde_json::from_slice(text).map_err(damaged)?;
    if version != SCHEMA_VERSION {
        let found = json::shown(&version);
        return Err(corrupt(format!("schema version {found}, this program reads {SCHEMA_VERSION}")));
    }
    let parts: Final = serde_json::from_slice(text).map_err(damaged)?;
    let path = folder.join(STATS);
    let (mut activations, data) = stats_file::read_with_bytes(&path)?;
    if parts.record.as_ref().is_some_and(|mark| mark.sha256 != sha256(&data)) {
        let message = format!("reading {}: it is not the record that {FINAL} was made from", path.display());
        return Err(
            Error::corrupt(message).hint("its files are of different runs, or damaged: save the analysis again")
        );
    }
    drop(data);
    stats::check_metadata(&activations)?;
    activations.measurements = parts.measurements;
    let unchecked = parts.record.is_none().then(|| {
        format!(
            "{}: its key `record` is missing, which says which {STATS} it was made from: a very old program wrote it, or \
             somebody changed it; the {STATS} beside it is used, and may be another or damaged; save the analysis again",
            folder.join(FINAL).display()
        )
    });
    let seal = parts.record.and_then(|mark| mark.answers_sha256);
    let sealed = seal.map(|seal| seal == agreement::seal(&parts.pooled, parts.intervals.as_ref()));
    let Settled { found, intervals, changed } = agreement::settle(&activations, parts.pooled, parts.intervals, sealed)
        .map_err(|error| corrupt(format!("`pooled`: {}", error.message)))?;
    let changed = changed.map(|what| {
        format!(
            "{}: it was changed after it was saved: {what}; the record's own answers are used",
            folder.join(FINAL).display()
        )
    });
    let changed = match (changed, unchecked) {
        (Some(changed), Some(unchecked)) => Some(format!("{changed}; {unchecked}")),
        (changed, unchecked) => changed.or(unchecked),
    };
    Ok(Stored {
        folder: folder.to_path_buf(),
        found: Arc::new(found),
        intervals: intervals.map(Arc::new),
        settings: parts.settings,
        activations: Arc::new(activations),
        changed,
    })
}

/// The greatest depth below `results/` at which result folders are looked for.
const DEPTH: usize = 3;

/// Returns the sorted names of all finished analyses below `root`. It does not check whether they
/// can be read.
pub fn list(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    let home = root.canonicalize().unwrap_or_default();
    while let Some((folder, depth)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Error::io(format!("reading {}", folder.display()), &e))?,
        };
        for entry in entries.filter_map(|entry| entry.ok()) {
            // The name of an analysis does not begin with a point, but that of an unfinished one
            // does.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            // A link to a folder below `root` is skipped, because that folder is listed by its own
            // name, and a folder above `root` has no name there.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link && path.canonicalize().is_ok_and(|to| to.starts_with(&home) || home.starts_with(to)) {
                continue;
            }
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
