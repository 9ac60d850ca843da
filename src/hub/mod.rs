//! From what a user writes (`a/folder` or `owner/name`) to a folder with the files of the model.
//!
//! Hub models come through the Hugging Face cache, file by file: config, index, tokenizer, then the shards the index
//! names. Token and endpoint are the hub client's own (`HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, RepoTypeModel};

use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};
use crate::secret::Secret;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// A token that somebody else's client has given to this process.
static TOKEN: Mutex<Option<Secret>> = Mutex::new(None);

/// From now on the hub is asked with this token.
pub fn use_token(token: Option<Secret>) {
    *TOKEN.lock().expect("no panic under this lock") = token;
}

/// The token that this machine's user has, to be handed to another machine: `HF_TOKEN`, then the file of `hf auth login`.
pub fn own_token() -> Option<Secret> {
    let variable = |name| std::env::var(name).ok().and_then(|text| Secret::new(&text));
    let home = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        std::env::var_os("HF_HOME").map(PathBuf::from).or(cache.map(|cache| cache.join("huggingface")))
    };
    let file = || std::env::var_os("HF_TOKEN_PATH").map(PathBuf::from).or(home().map(|home| home.join("token")));
    let stored = || file().and_then(|path| std::fs::read_to_string(path).ok()).and_then(|text| Secret::new(&text));
    variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(stored)
}

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
    let mut repository = Repository::open(id, revision)?;
    let config = repository.required("config.json")?;
    let located = repository.located(&config);
    // The other files are those of the same commit, whatever happens to a branch meanwhile.
    repository.revision = located.revision.clone();
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
    Ok(located)
}

fn local(id: &str) -> Option<PathBuf> {
    let folder = Path::new(id);
    folder.is_dir().then(|| folder.to_path_buf())
}

fn shard_names(index: &Path) -> Result<Vec<String>> {
    let reading = format!("reading {}", index.display());
    let damaged = |problem: String| Error::corrupt(format!("{reading}: {problem}")).hint("is this model complete?");
    let text = std::fs::read_to_string(index).map_err(|e| Error::io(&reading, &e))?;
    let index: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(format!("not valid JSON: {e}")))?;
    let map = index["weight_map"].as_object();
    let map = map.ok_or_else(|| damaged("`weight_map` is missing".to_string()))?;
    let mut names: Vec<_> = map.values().filter_map(|value| value.as_str().map(str::to_string)).collect();
    names.sort();
    names.dedup();
    // A name with a path could lead out of the cache.
    match names.iter().find(|name| name.contains('/') || name.starts_with('.')) {
        Some(name) => Err(damaged(format!("`{name}` is not a file of this model"))),
        None => Ok(names),
    }
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
        let token = TOKEN.lock().expect("no panic under this lock").clone();
        let client = match token {
            Some(token) => HFClient::builder().token(token.expose()).build().and_then(HFClientSync::from_inner),
            None => HFClientSync::new(),
        };
        let client = client.map_err(|e| Error::new(Kind::Io, format!("starting the hub client: {e}")))?;
        Ok(Self { id, revision: revision.map(str::to_string), files: client.model(owner, name) })
    }

    fn file(&self, name: &str) -> std::result::Result<PathBuf, HFError> {
        let fetch = |force| {
            let request = self.files.download_file().filename(name).maybe_revision(self.revision.clone());
            request.force_download(force).send()
        };
        let path = fetch(false)?;
        // The client keeps an error page that a server sends in place of a file, and would give it to us for ever.
        if is_plausible(&path) { Ok(path) } else { fetch(true) }
    }

    /// The hub answers alike when a model, a revision or a file does not exist: asks which it is.
    fn missing(&self, error: HFError) -> HFError {
        match error {
            HFError::EntryNotFound { .. } => {
                self.files.info().maybe_revision(self.revision.clone()).send().err().map_or(
                    error,
                    |other| match other {
                        HFError::RevisionNotFound { .. } => self.files.info().send().err().unwrap_or(other),
                        other => other,
                    },
                )
            }
            other => other,
        }
    }

    fn required(&self, name: &str) -> Result<PathBuf> {
        self.file(name).map_err(|e| self.error(name, self.missing(e)))
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
            HFError::AuthRequired { context } if says(&context.server_message, "Invalid credentials") => {
                Error::new(Kind::Auth, format!("{doing}: the token is not valid"))
                    .hint("set HF_TOKEN to a valid token, or unset it: public models need none")
            }
            // To those who may not know, a private model does not exist.
            HFError::AuthRequired { context } if !says(&context.error_code, "GatedRepo") => {
                Error::not_found(format!("{doing}: no such model, or it is private"))
                    .hint("check the id; for a private model set HF_TOKEN")
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                Error::new(Kind::Auth, format!("{doing}: access refused"))
                    .hint("accept the model's terms on the hub and set HF_TOKEN to a token that may read it")
            }
            HFError::RepoNotFound { .. } => Error::not_found(format!("{doing}: no such model, or it is private"))
                .hint("check the id; for a private model set HF_TOKEN"),
            HFError::RevisionNotFound { revision, .. } => {
                Error::not_found(format!("{doing}: no revision \"{revision}\""))
                    .hint("give a branch, tag or commit of this model, or leave `revision` out")
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

fn says(field: &Option<String>, words: &str) -> bool {
    field.as_ref().is_some_and(|text| text.contains(words))
}

/// Whether a file begins like what its name says.
fn is_plausible(path: &Path) -> bool {
    let mut begin = [0u8; 9];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut begin));
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => begin.trim_ascii_start().starts_with(b"{"),
        // The length of the header, then the header.
        Some("safetensors") => read.is_ok_and(|count| count == 9) && begin[8] == b'{',
        _ => true,
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
