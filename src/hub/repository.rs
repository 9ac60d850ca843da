//! A model of the hub in the Hugging Face cache: which files it needs, which are there, and those that are missing fetched.
//!
//! Small files come through the hub's own client; large ones through `download`, which can go on where it was stopped.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, RepoTypeModel};

use super::cache::Snapshot;
use super::download::{Tally, download};
use super::environment;
use super::http::{self, Http};
use super::refusal::{self, Refusal};
use super::resolve::{Address, RemoteFile};
use super::shards::{self, INDEX, SINGLE};
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};

/// The folder of a snapshot and its commit.
pub struct Located {
    pub folder: PathBuf,
    pub revision: String,
}

/// All files of a model in the cache, downloaded where they are missing.
pub fn locate(address: &Arc<Address>, revision: Option<&str>, progress: &dyn Progress) -> Result<Located> {
    let mut repository = Repository::open(address, revision)?;
    let config = repository.required("config.json")?;
    // The cache keeps files under `snapshots/<commit>/`.
    let folder = config.parent().unwrap_or(Path::new(".")).to_path_buf();
    let commit = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The other files are those of the same commit, whatever happens to a branch meanwhile.
    repository.revision = Some(commit.clone());
    let names = match repository.optional(INDEX)? {
        Some(index) => {
            let text = std::fs::read(&index).map_err(|e| Error::io(format!("reading {}", index.display()), &e))?;
            shards::names(&text, &folder.display().to_string())?
        }
        None => vec![SINGLE.to_string()],
    };
    let snapshot = Snapshot::of(&folder).ok_or_else(|| Error::not_found(format!("{}: no cache", folder.display())))?;
    let missing = names.iter().map(|name| (name.clone(), true)).chain([("tokenizer.json".to_string(), false)]);
    let missing: Vec<_> = missing.filter(|(name, _)| !is_plausible(&snapshot.file(name))).collect();
    repository.fetch(&missing, &snapshot, progress)?;
    Ok(Located { folder, revision: commit })
}

struct Repository {
    address: Arc<Address>,
    revision: Option<String>,
    files: HFRepositorySync<RepoTypeModel>,
}

impl Repository {
    fn open(address: &Arc<Address>, revision: Option<&str>) -> Result<Self> {
        let client = match environment::given_token() {
            Some(token) => HFClient::builder().token(token.expose()).build().and_then(HFClientSync::from_inner),
            None => HFClientSync::new(),
        };
        let client = client.map_err(|e| Error::new(Kind::Io, format!("starting the hub client: {e}")))?;
        let (owner, name) = address.owner_and_name();
        Ok(Self { address: address.clone(), revision: revision.map(str::to_string), files: client.model(owner, name) })
    }

    /// Downloads files by name, of which some must exist.
    fn fetch(&self, names: &[(String, bool)], snapshot: &Snapshot, progress: &dyn Progress) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        if environment::offline() {
            let needed = names.iter().find(|(_, required)| *required);
            return needed.map_or(Ok(()), |(name, _)| Err(refusal::error(&self.address.doing(name), Refusal::Offline)));
        }
        let commit = self.revision.as_deref().unwrap_or("main");
        let http = Arc::new(Http::new()?);
        let found = resolve_all(&http, &self.address, commit, names.iter().map(|(name, _)| name.as_str()))?;
        let mut files = Vec::new();
        for (found, (_, required)) in found.into_iter().zip(names) {
            match found {
                Err(error) if error.kind == Kind::NotFound && !required => (),
                found => files.push(found?),
            }
        }
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        let what = format!("downloading {}, {} files, {:.2} GB", self.address.id, files.len(), total as f64 / 1e9);
        progress.event(Event::Begin { what, total });
        let mut tally = Tally::new(progress);
        for file in &files {
            if file.large {
                download(&http, file, snapshot, &mut tally)?;
            } else {
                self.required(&file.name)?;
                tally.add(file.bytes)?;
            }
            // A page of apologies can look like a file of the right size.
            if !is_plausible(&snapshot.file(&file.name)) {
                let problem = "what was sent does not begin like such a file";
                return Err(refusal::error(&file.doing(), Refusal::Other(problem.to_string())));
            }
        }
        progress.event(Event::Step { done: total, bytes: total, tokens: 0 });
        progress.event(Event::End);
        Ok(())
    }

    fn file(&self, name: &str) -> std::result::Result<PathBuf, HFError> {
        let fetch = |force| {
            let request = self.files.download_file().filename(name).maybe_revision(self.revision.clone());
            request.local_files_only(environment::offline()).force_download(force).send()
        };
        let path = fetch(false)?;
        // The client keeps an error page that a server sends in place of a file, and would give it to us for ever.
        if is_plausible(&path) || environment::offline() { Ok(path) } else { fetch(true) }
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
            Err(HFError::LocalEntryNotFound { .. }) if environment::offline() => Ok(None),
            Err(e) => Err(self.error(name, e)),
        }
    }

    fn error(&self, file: &str, error: HFError) -> Error {
        refusal::error(&self.address.doing(file), Refusal::of_client(error))
    }
}

/// Asks the hub for several files at once; one answer per name.
pub fn resolve_all<'a>(
    http: &Arc<Http>,
    address: &Arc<Address>,
    revision: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Result<Arc<RemoteFile>>>> {
    let (http, address, revision) = (http.clone(), address.clone(), revision.to_string());
    let names: Vec<_> = names.map(str::to_string).collect();
    http::wait(async move {
        let ask = |name: String| {
            let (http, address, revision) = (http.clone(), address.clone(), revision.clone());
            tokio::spawn(async move { RemoteFile::resolve(&http, &address, &revision, &name).await.map(Arc::new) })
        };
        let tasks: Vec<_> = names.into_iter().map(ask).collect();
        let mut found = Vec::new();
        for task in tasks {
            found.push(task.await.map_err(|e| Error::new(Kind::Io, format!("asking the hub: {e}")))?);
        }
        Ok(found)
    })
}

/// Whether a file exists and begins like what its name says.
fn is_plausible(path: &Path) -> bool {
    let mut begin = [0u8; 9];
    let Ok(read) = std::fs::File::open(path).and_then(|mut file| file.read(&mut begin)) else { return false };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => begin.trim_ascii_start().starts_with(b"{"),
        // The length of the header, then the header.
        Some("safetensors") => read == 9 && begin[8] == b'{',
        _ => true,
    }
}
