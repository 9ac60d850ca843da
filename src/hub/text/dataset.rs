//! A file of a dataset on the hub, read by ranges: the choice of commit and file, and a cache of
//! the ranges.
//!
//! The cache is in the user's cache folder,
//! `outlier/datasets/<owner>--<name>/<commit>/<file>/<first byte>-<length>`, so that the same text
//! is available later without a network.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::failure::TextFailure;
use super::text_file::TextFile;
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::hub::cache::repository::problem;
use crate::hub::environment;
use crate::hub::failure::{Failure, refused};
use crate::hub::file_name::Name;
use crate::hub::http::client::{Http, Patience};
use crate::hub::http::questions::{ask_all, resolve_all};
use crate::hub::http::ranges::{Limits, Ranges};
use crate::hub::http::refusal::Refusal;
use crate::hub::http::resolve::{Address, RepositoryKind, check_revision};
use crate::hub::names::{is_commit, is_file_path};
use crate::hub::spelling;
use crate::outside;
use crate::progress::note;
use crate::record::{DEFAULT_REVISION, DatasetArgs};

/// The usual prefixes of file names: `train-00000-of-00010.parquet`.
const SPLITS: &[&str] = &["train", "validation", "test"];
/// The largest file and the largest range in bytes: larger than any text file, and than any column
/// of a row group.
const LARGEST_FILE: u64 = 1 << 40;
const LARGEST_RANGE: u64 = 4 << 30;
/// The first thing that is requested, in messages.
const DESCRIPTION: &str = "its description";
/// The largest stored choice in bytes.
const CHOICE: u64 = 64 << 10;

/// A file of a dataset at a commit.
pub(crate) struct Found {
    pub file: TextFile,
    pub revision: String,
}

/// The file that `DatasetArgs` selects.
#[derive(Clone, Serialize, Deserialize)]
struct Choice {
    commit: String,
    file: String,
    bytes: u64,
}

impl Choice {
    /// True if it is safe as part of a path. It may come from the hub or from the cache.
    fn is_harmless(&self) -> bool {
        is_commit(&self.commit) && is_file_path(&self.file) && self.bytes <= LARGEST_FILE
    }
}

/// Selects the file without reading it.
///
/// # Errors
/// `not_found` if the dataset, revision, config, split or file does not exist, `io` if the hub
/// cannot be reached and the text is not in the cache.
pub(crate) fn open(args: &DatasetArgs) -> Result<Found> {
    let meant = spelling::meant(RepositoryKind::Dataset, &args.id);
    let address = Address::new(RepositoryKind::Dataset, &args.id).filter(|_| meant.is_none());
    let address = address.ok_or_else(|| {
        let usual = "an id looks like \"HuggingFaceFW/fineweb-edu\"; a file of this machine goes under `text`";
        let hint = meant.map_or(usual.to_string(), |meant| meant.told());
        Error::of(Failure::NoDatasetId { id: args.id.clone(), hint })
    })?;
    let address = Arc::new(address);
    check_revision(&address, args.revision.as_deref().unwrap_or(DEFAULT_REVISION))?;
    for (option, path) in [("file", &args.file), ("config", &args.config)] {
        if let Some(path) = path.as_ref().filter(|path| !is_file_path(path)) {
            return Err(Error::of(Failure::LeadsOut { option, path: path.clone() }));
        }
    }
    let folder = environment::caches().map(|caches| caches.join("outlier/datasets").join(args.id.replace('/', "--")));
    let choice = choice(&address, args, folder.as_deref())?;
    let cache = folder.map(|folder| folder.join(&choice.commit).join(&choice.file));
    let name = format!("{}/{}", args.id, choice.file);
    let cached = Cached { address, choice: choice.clone(), cache, remote: std::sync::Mutex::new(None) };
    let read = move |range| cached.read(range);
    Ok(Found { file: TextFile::remote(name, choice.bytes, Arc::new(read)), revision: choice.commit })
}

/// Asks the hub which file is selected. The last answer is used if it cannot have changed, or if
/// the hub cannot be asked.
fn choice(address: &Arc<Address>, args: &DatasetArgs, folder: Option<&Path>) -> Result<Choice> {
    let question = serde_json::to_vec(args).expect("arguments are JSON");
    let digest: String = Sha256::digest(&question)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.map(|folder| folder.join(format!("choice-{digest}.json")));
    let known = || {
        let text = outside::read(path.as_ref()?, CHOICE).ok()?;
        serde_json::from_slice(&text).ok().filter(Choice::is_harmless)
    };
    let pinned = args.revision.as_deref().is_some_and(is_commit);
    if (pinned || environment::offline())
        && let Some(choice) = known()
    {
        return Ok(choice);
    }
    if environment::offline() {
        return Err(refused(&address.doing(args.file.as_deref().unwrap_or("the list of files")), Refusal::Offline));
    }
    let known = known();
    let choice = match (ask(address, args, known.is_some()), known) {
        (Err(error), Some(known)) if error.kind == Kind::Io => {
            let (told, problem, commit) = (address.told(), problem(&error, address), &known.commit);
            note(&format!("{told}: {problem}: used as it is in the cache, commit {commit}"));
            return Ok(known);
        }
        (answer, _) => answer?,
    };
    if let Some(path) = &path {
        let text = serde_json::to_vec(&choice).expect("plain data");
        // A cache that cannot be written is not an error.
        let _ = disk::write(path, &text);
    }
    Ok(choice)
}

/// If `hurried`, the hub has one short chance to answer each question, because there is an earlier
/// answer.
fn ask(address: &Arc<Address>, args: &DatasetArgs, hurried: bool) -> Result<Choice> {
    let (http, patience): (_, fn() -> Patience) = match hurried {
        true => (Http::new()?.hurried(), Patience::once),
        false => (Http::new()?, Patience::default),
    };
    let http = Arc::new(http);
    let revision = args.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    let info: Vec<Described> = http.json(&address.api_path(revision), &address.doing(DESCRIPTION), patience)?;
    let commit = info.into_iter().find_map(|info| info.sha).filter(|commit| is_commit(commit)).ok_or_else(|| {
        let problem = "the hub names no commit".to_string();
        Error::of(Failure::BadAnswer { doing: address.doing(DESCRIPTION), problem })
    })?;
    let file = match &args.file {
        Some(file) => file.clone(),
        None => smallest(&http, address, &commit, args, patience)?,
    };
    let found = ask_all(&http, address, &commit, [file.as_str()].into_iter(), patience)?.remove(0)?;
    let choice = Choice { commit, file, bytes: found.bytes };
    // `resolve` has made the same checks. They are repeated because the choice becomes a path.
    choice.is_harmless().then_some(choice).ok_or_else(|| found.changed())
}

/// The smallest file of a config and split: as good a sample as any, and quick to open. Parquet
/// files are preferred.
fn smallest(
    http: &Arc<Http>,
    address: &Address,
    commit: &str,
    args: &DatasetArgs,
    patience: fn() -> Patience,
) -> Result<String> {
    let folders = match &args.config {
        // FineWeb keeps "sample-10BT" in sample/10BT and "CC-MAIN-2024-10" in data/CC-MAIN-2024-10.
        Some(config) => vec![config.clone(), config.replacen('-', "/", 1), format!("data/{config}")],
        None => vec!["data".to_string(), "default".to_string()],
    };
    let (mut listed, mut others) = (Vec::new(), Vec::new());
    for folder in &folders {
        let doing = address.doing(&format!("the list of {folder}/"));
        match http.json::<TextFiles>(&address.tree_path(commit, folder), &doing, patience) {
            Err(error) if error.kind == Kind::NotFound => continue,
            pages => {
                let files: Vec<_> = pages?.into_iter().flat_map(|TextFiles(files)| files).collect();
                listed = files.iter().filter(|(path, _)| path.ends_with(".parquet")).cloned().collect();
                if others.is_empty() {
                    others = files.into_iter().filter(|(path, _)| holds_texts(path)).collect();
                }
            }
        }
        if !listed.is_empty() {
            break;
        }
    }
    let config = args.config.as_deref().unwrap_or("default");
    if listed.is_empty() && others.is_empty() {
        return Err(Error::of(Failure::NoTextFiles { place: address.told(), config: config.to_string() }));
    }
    let split_of: fn(&str) -> Option<&'static str> = if listed.is_empty() { split_among_words } else { split_in_front };
    let mut listed = if listed.is_empty() { others } else { listed };
    if listed.iter().any(|(path, _)| split_of(path).is_some()) {
        listed.retain(|(path, _)| split_of(path).is_some_and(|split| split == args.split));
    } else if args.split != "train" {
        listed.clear();
    }
    let (path, _) = listed.into_iter().min_by_key(|(path, bytes)| (*bytes, path.clone())).ok_or_else(|| {
        let (config, split) = (config.to_string(), args.split.clone());
        Error::of(Failure::NoSplit { place: address.told(), config, split })
    })?;
    Ok(path)
}

/// The split in the usual names of Parquet files: "train-00000-of-00010.parquet".
fn split_in_front(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    SPLITS.iter().copied().find(|split| name.starts_with(&format!("{split}-")) || name == format!("{split}.parquet"))
}

/// The split as a word in a file's name: "c4-train.00000-of-01024.json.gz".
fn split_among_words(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .find_map(|word| SPLITS.iter().copied().find(|split| *split == word))
}

/// True if the name of a file other than Parquet is that of texts, and not of a dataset's
/// documentation.
fn holds_texts(path: &str) -> bool {
    let name = Name::of(path);
    let about = name.unpacked.starts_with("dataset_")
        || ["info.json", "infos.json"].iter().any(|end| name.unpacked.ends_with(end));
    !about && name.is_of_documents()
}

/// The used fields of a dataset's description.
#[derive(Deserialize)]
struct Described {
    sha: Option<String>,
}

/// An entry of a list of files. Folders have no size.
#[derive(Deserialize)]
struct Entry {
    path: String,
    size: Option<u64>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// The possible text files in a page of such a list, with their sizes in bytes. Other entries are
/// dropped.
struct TextFiles(Vec<(String, u64)>);

impl<'de> Deserialize<'de> for TextFiles {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = TextFiles;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of files")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> std::result::Result<TextFiles, A::Error> {
                let mut files = Vec::new();
                while let Some(Entry { path, size, kind }) = entries.next_element()? {
                    let is_wanted = (path.ends_with(".parquet") || holds_texts(&path)) && is_file_path(&path);
                    let size = size.filter(|_| is_wanted && kind.as_deref() != Some("directory"));
                    files.extend(size.map(|size| (path, size)));
                }
                Ok(TextFiles(files))
            }
        }
        from.deserialize_seq(Entries)
    }
}

/// The bytes of the file, from the cache, or from the hub and then cached.
struct Cached {
    address: Arc<Address>,
    choice: Choice,
    cache: Option<PathBuf>,
    remote: std::sync::Mutex<Option<Arc<Ranges>>>,
}

impl Cached {
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let bytes = range.end - range.start;
        let path = self.cache.as_ref().map(|cache| cache.join(format!("{}-{bytes}", range.start)));
        if bytes > LARGEST_RANGE {
            return Err(Error::of(TextFailure::LargeRange { name: self.choice.file.clone(), bytes }));
        }
        let is_whole = |path: &&PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.len() == bytes);
        let cached = path.as_ref().filter(is_whole).and_then(|path| outside::read(path, LARGEST_RANGE).ok());
        if let Some(data) = cached.filter(|data| data.len() as u64 == bytes) {
            return Ok(data);
        }
        let mut data = vec![0; bytes as usize];
        self.remote()?.read(0, range.start, &mut data)?;
        if let Some(path) = &path {
            let _ = disk::write(path, &data);
        }
        Ok(data)
    }

    fn remote(&self) -> Result<Arc<Ranges>> {
        let mut remote = self.remote.lock().expect("no panic under this lock");
        if let Some(ranges) = &*remote {
            return Ok(ranges.clone());
        }
        if environment::offline() {
            return Err(refused(&self.address.doing(&self.choice.file), Refusal::Offline));
        }
        let http = Arc::new(Http::new()?);
        let name = self.choice.file.as_str();
        let file = resolve_all(&http, &self.address, &self.choice.commit, [name].into_iter())?.remove(0);
        let file = file.map_err(|error| match error.kind {
            Kind::Io => {
                let (told, problem) = (self.address.told(), problem(&error, &self.address));
                Error { message: format!("{told}: not all of {name} is in the cache, and {problem}"), ..error }
            }
            _ => error,
        })?;
        if file.bytes != self.choice.bytes {
            return Err(file.changed());
        }
        let ranges = Ranges::new(http, vec![file], Limits::STREAM);
        *remote = Some(ranges.clone());
        Ok(ranges)
    }
}
