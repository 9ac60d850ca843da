//! A Parquet file of a dataset on the hub, read by ranges: which commit, which file, and a cache of the ranges read.
//!
//! The cache is below the user's cache folder, `outlier/datasets/<owner>--<name>/<commit>/<file>/<first byte>-<length>`, so
//! that the same text is there again without a network.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::environment;
use super::http::Http;
use super::parquet_text::TextColumn;
use super::ranges::{Limits, Ranges};
use super::refusal::{self, Refusal};
use super::repository::resolve_all;
use super::resolve::{Address, RepositoryKind};
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::record::DatasetArgs;

/// How file names of the usual layout begin: `train-00000-of-00010.parquet`.
const SPLITS: &[&str] = &["train", "validation", "test"];

/// A column of a file of a dataset.
pub struct Found {
    pub source: String,
    pub revision: String,
    pub column: TextColumn,
}

/// Which file `DatasetArgs` means.
#[derive(Clone, Serialize, Deserialize)]
struct Choice {
    commit: String,
    file: String,
    bytes: u64,
}

/// Finds the file and opens the column `column` of it.
///
/// # Errors
/// `not_found` when the dataset, revision, config, split or file does not exist, `io` when the hub cannot be reached and the
/// text is not in the cache.
pub fn open(args: &DatasetArgs, column: &str) -> Result<Found> {
    let address = Address::new(RepositoryKind::Dataset, &args.id).ok_or_else(|| {
        Error::bad_argument(format!("load_tokens: dataset \"{}\" is not a hub id", args.id))
            .hint("an id looks like \"HuggingFaceFW/fineweb-edu\"; a file of this machine goes under `text`")
    })?;
    let address = Arc::new(address);
    let folder = environment::caches().map(|caches| caches.join("outlier/datasets").join(args.id.replace('/', "--")));
    let choice = choice(&address, args, folder.as_deref())?;
    let cache = folder.map(|folder| folder.join(&choice.commit).join(&choice.file));
    let name = format!("{}/{}", args.id, choice.file);
    let cached = Cached { address, choice: choice.clone(), cache, remote: std::sync::Mutex::new(None) };
    let read = move |range| cached.read(range);
    let column = TextColumn::open(&name, choice.bytes, column, Arc::new(read))?;
    Ok(Found { source: name, revision: choice.commit, column })
}

/// Asks the hub which file is meant; where that is known for good, or the hub cannot be asked, the last answer counts.
fn choice(address: &Arc<Address>, args: &DatasetArgs, folder: Option<&Path>) -> Result<Choice> {
    let question = serde_json::to_vec(args).expect("arguments are JSON");
    let digest: String = Sha256::digest(&question)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.map(|folder| folder.join(format!("choice-{digest}.json")));
    let known = || {
        let text = std::fs::read(path.as_ref()?).ok()?;
        serde_json::from_slice::<Choice>(&text).ok()
    };
    let pinned = args.revision.as_deref().is_some_and(is_commit);
    if (pinned || environment::offline())
        && let Some(choice) = known()
    {
        return Ok(choice);
    }
    if environment::offline() {
        return Err(refusal::error(
            &address.doing(args.file.as_deref().unwrap_or("the list of files")),
            Refusal::Offline,
        ));
    }
    let choice = match ask(address, args) {
        Err(error) if error.kind == Kind::Io => return known().ok_or(error),
        answer => answer?,
    };
    if let Some(path) = &path {
        let text = serde_json::to_vec(&choice).expect("plain data");
        // A cache that cannot be written is no reason to fail.
        let _ = disk::write(path, &text);
    }
    Ok(choice)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn ask(address: &Arc<Address>, args: &DatasetArgs) -> Result<Choice> {
    let http = Arc::new(Http::new()?);
    let revision = args.revision.as_deref().unwrap_or("main");
    let info = http.json(&address.api_path(revision), &address.doing("its description"))?;
    let commit = info["sha"].as_str().map(str::to_string).ok_or_else(|| {
        Error::new(Kind::Io, format!("{}: the hub names no commit", address.doing("its description")))
    })?;
    let file = match &args.file {
        Some(file) => file.clone(),
        None => smallest(&http, address, &commit, args)?,
    };
    let found = resolve_all(&http, address, &commit, [file.as_str()].into_iter())?.remove(0)?;
    Ok(Choice { commit, file, bytes: found.bytes })
}

/// The smallest Parquet file of a config and split: as good a sample as any, and quick to open.
fn smallest(http: &Arc<Http>, address: &Address, commit: &str, args: &DatasetArgs) -> Result<String> {
    let folders = match &args.config {
        // FineWeb keeps "sample-10BT" in sample/10BT and "CC-MAIN-2024-10" in data/CC-MAIN-2024-10.
        Some(config) => vec![config.clone(), config.replacen('-', "/", 1), format!("data/{config}")],
        None => vec!["data".to_string(), "default".to_string()],
    };
    let mut listed = Vec::new();
    for folder in &folders {
        match http.json(&address.tree_path(commit, folder), &address.doing(&format!("the list of {folder}/"))) {
            Err(error) if error.kind == Kind::NotFound => continue,
            list => listed = parquet_files(&list?),
        }
        if !listed.is_empty() {
            break;
        }
    }
    let config = args.config.as_deref().unwrap_or("default");
    if listed.is_empty() {
        let message = format!("{}: no Parquet files of a config \"{config}\"", address.told());
        return Err(
            Error::not_found(message).hint("name a file of the dataset with `file`, such as file: \"data/x.parquet\"")
        );
    }
    let split_of = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default().to_string();
        SPLITS.iter().find(|split| name.starts_with(&format!("{split}-")) || name == format!("{split}.parquet"))
    };
    if listed.iter().any(|(path, _)| split_of(path).is_some()) {
        listed.retain(|(path, _)| split_of(path).is_some_and(|split| *split == args.split));
    } else if args.split != "train" {
        listed.clear();
    }
    let (path, _) = listed.into_iter().min_by_key(|(path, bytes)| (*bytes, path.clone())).ok_or_else(|| {
        Error::not_found(format!("{}: config \"{config}\" has no split \"{}\"", address.told(), args.split))
            .hint("name a file of the dataset with `file`")
    })?;
    Ok(path)
}

fn parquet_files(list: &Value) -> Vec<(String, u64)> {
    let file = |entry: &Value| {
        let path = entry["path"].as_str().filter(|path| path.ends_with(".parquet"))?;
        Some((path.to_string(), entry["size"].as_u64()?))
    };
    list.as_array().into_iter().flatten().filter_map(file).collect()
}

/// The bytes of the file: from the cache, or from the hub and then in the cache.
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
        let cached = path.as_ref().and_then(|path| std::fs::read(path).ok());
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
            return Err(refusal::error(&self.address.doing(&self.choice.file), Refusal::Offline));
        }
        let http = Arc::new(Http::new()?);
        let name = self.choice.file.as_str();
        let file = resolve_all(&http, &self.address, &self.choice.commit, [name].into_iter())?.remove(0)?;
        if file.bytes != self.choice.bytes {
            return Err(file.changed());
        }
        let ranges = Ranges::new(http, vec![file], Limits::STREAM);
        *remote = Some(ranges.clone());
        Ok(ranges)
    }
}
