//! From what a user writes (`a/folder` or `owner/name`) to a folder with the files of the model.
//!
//! Hub models come through the Hugging Face cache, file by file: config, index, tokenizer, then the shards the index
//! names. Token and endpoint are the hub client's own (`HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME`).

use std::path::{Path, PathBuf};

use hf_hub::{HFClientSync, HFError, HFRepositorySync, RepoTypeModel};

use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

pub struct Located {
    pub folder: PathBuf,
    /// The hub's commit; `None` for a folder.
    pub revision: Option<String>,
}

/// Only `config.json` (and the headers' index, where there is one): enough for a plan.
pub fn locate_config(id: &str, revision: Option<&str>) -> Result<Located> {
    if let Some(folder) = local(id) {
        return Ok(Located { folder, revision: None });
    }
    let repository = Repository::open(id, revision)?;
    let folder = repository.required("config.json")?;
    Ok(repository.located(&folder))
}

/// All files of the model. A folder that exists wins over a hub id.
pub fn locate(id: &str, revision: Option<&str>, progress: &dyn Progress) -> Result<Located> {
    if let Some(folder) = local(id) {
        return Ok(Located { folder, revision: None });
    }
    let repository = Repository::open(id, revision)?;
    let config = repository.required("config.json")?;
    repository.optional("tokenizer.json")?;
    let shards = match repository.optional(INDEX)? {
        Some(index) => shard_names(&index)?,
        None => vec![SINGLE.to_string()],
    };
    progress.event(Event::Begin { what: format!("downloading {id}"), total: shards.len() as u64 });
    let mut bytes = 0;
    for (done, shard) in (1..).zip(&shards) {
        if progress.interrupted() {
            return Err(Error::interrupted());
        }
        let path = repository.required(shard)?;
        bytes += std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        progress.event(Event::Step { done, bytes, tokens: 0 });
    }
    progress.event(Event::End);
    Ok(repository.located(&config))
}

fn local(id: &str) -> Option<PathBuf> {
    let folder = Path::new(id);
    folder.is_dir().then(|| folder.to_path_buf())
}

fn shard_names(index: &Path) -> Result<Vec<String>> {
    let reading = format!("reading {}", index.display());
    let text = std::fs::read_to_string(index).map_err(|e| Error::io(&reading, &e))?;
    let index: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::corrupt(format!("{reading}: not valid JSON: {e}")))?;
    let map = index["weight_map"].as_object();
    let map = map.ok_or_else(|| Error::corrupt(format!("{reading}: `weight_map` is missing")))?;
    let mut names: Vec<_> = map.values().filter_map(|value| value.as_str().map(str::to_string)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

struct Repository<'a> {
    id: &'a str,
    revision: Option<String>,
    files: HFRepositorySync<RepoTypeModel>,
}

impl<'a> Repository<'a> {
    fn open(id: &'a str, revision: Option<&str>) -> Result<Self> {
        let Some((owner, name)) = id.split_once('/').filter(|(owner, name)| is_name(owner) && is_name(name)) else {
            return Err(Error::not_found(format!("model \"{id}\": no such folder, and not a hub id"))
                .hint("give a folder with config.json and safetensors files, or a hub id such as \"allenai/OLMoE-1B-7B-0125\""));
        };
        let client = HFClientSync::new().map_err(|e| Error::new(Kind::Io, format!("starting the hub client: {e}")))?;
        Ok(Self { id, revision: revision.map(str::to_string), files: client.model(owner, name) })
    }

    fn file(&self, name: &str) -> std::result::Result<PathBuf, HFError> {
        self.files.download_file().filename(name).maybe_revision(self.revision.clone()).send()
    }

    fn required(&self, name: &str) -> Result<PathBuf> {
        self.file(name).map_err(|e| self.error(name, e))
    }

    fn optional(&self, name: &str) -> Result<Option<PathBuf>> {
        match self.file(name) {
            Ok(path) => Ok(Some(path)),
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(name, e)),
        }
    }

    fn error(&self, file: &str, error: HFError) -> Error {
        let doing = format!("model \"{}\": fetching {file} from the hub", self.id);
        match error {
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                Error::new(Kind::Auth, format!("{doing}: access refused"))
                    .hint("accept the model's terms on the hub and set HF_TOKEN to a token that may read it")
            }
            HFError::RepoNotFound { .. } => Error::not_found(format!("{doing}: no such model, or it is private"))
                .hint("check the id; for a private model set HF_TOKEN"),
            HFError::RevisionNotFound { revision, .. } => {
                Error::not_found(format!("{doing}: no revision \"{revision}\""))
            }
            HFError::EntryNotFound { .. } => Error::not_found(format!("{doing}: the model has no such file"))
                .hint("only safetensors checkpoints can be read; look for a converted copy of this model"),
            HFError::RateLimited { .. } => Error::new(Kind::Io, format!("{doing}: the hub limits the rate"))
                .hint("wait a few minutes, or set HF_TOKEN for higher limits"),
            other => Error::new(Kind::Io, format!("{doing}: {other}"))
                .hint("is the network reachable? a model that is already in a folder can be given by its path"),
        }
    }

    /// The cache keeps files under `snapshots/<commit>/`.
    fn located(&self, file: &Path) -> Located {
        let folder = file.parent().unwrap_or(Path::new(".")).to_path_buf();
        let revision = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        Located { folder, revision }
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
