//! A simulated hub on this machine: it sends files and headers as the real one does, redirects to
//! another host for large files (`cdn`), and refuses in the same ways.
//!
//! Answers follow huggingface_hub's `utils/_http.py`, which says how the hub's errors are told apart.

pub mod cdn;
pub mod hostile;
mod http;

use std::collections::HashMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::project::{Outcome, Project};
use cdn::{Cdn, Network};
use hostile::Hostile;
pub use http::Request;
use http::{Reply, decoded, serve, write};

/// The only commit of every model, by this name or as `main` or `v1`.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only token that is accepted.
pub const TOKEN: &str = "hf_secretSecretSECRET";
/// Exit code of a failed model.
pub const FAILED: i32 = 3;

/// What one model on the hub does.
#[derive(Clone)]
pub enum Model {
    Folder(PathBuf),
    Gated,
    Private,
    /// Is under this name now, to which every address of its own redirects.
    Moved(&'static str),
    /// Sends a page of apologies in place of every file that ends so.
    Sorry(PathBuf, &'static str),
}

/// What the hub itself does to everybody. `Default`: nothing unusual.
#[derive(Clone, Default)]
pub struct Mood {
    /// So many requests are refused because they come too often.
    pub limited: u64,
    /// So many requests are answered with 503.
    pub busy: u64,
    /// Small files are elsewhere on the hub, by a relative redirect.
    pub relative_redirects: bool,
    /// Large files are announced as Xet files too.
    pub xet: bool,
    /// The announced hash of large files that end so is another one.
    pub wrong_hash: Option<&'static str>,
    /// What it does to those who trust it.
    pub hostile: Vec<Hostile>,
}

/// The state that all connections share.
#[derive(Clone)]
struct Shared {
    models: Arc<Mutex<HashMap<String, Model>>>,
    requests: Arc<Mutex<Vec<Request>>>,
    mood: Arc<Mutex<Mood>>,
    hashes: Arc<Mutex<HashMap<PathBuf, String>>>,
    cdn: Cdn,
}

pub struct Hub {
    pub address: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    pub cdn: Cdn,
    shared: Shared,
}

impl Hub {
    pub fn start() -> Self {
        let shared = Shared {
            models: Arc::default(),
            requests: Arc::default(),
            mood: Arc::default(),
            hashes: Arc::default(),
            cdn: Cdn::start(),
        };
        let serving = shared.clone();
        let address = serve(move |request, stream| serving.answer(request, stream));
        Self { address, requests: shared.requests.clone(), cdn: shared.cdn.clone(), shared }
    }

    /// A model by `owner/name`, or a dataset by `datasets/owner/name`.
    pub fn with(self, id: &str, model: Model) -> Self {
        self.set(id, model);
        self
    }

    pub fn set(&self, id: &str, model: Model) {
        self.shared.models.lock().unwrap().insert(id.to_string(), model);
        self.shared.hashes.lock().unwrap().clear();
    }

    pub fn network(&self, network: Network) -> &Self {
        *self.cdn.network.lock().unwrap() = network;
        self
    }

    pub fn mood(&self, mood: Mood) -> &Self {
        *self.shared.mood.lock().unwrap() = mood;
        self
    }

    /// The program, to be started in the project's folder with this hub.
    pub fn command(&self, project: &Project, script: &str) -> std::process::Command {
        project.file("script.rhai", script);
        let mut command = project.command(&["run", "script.rhai"]);
        command.env("HF_ENDPOINT", &self.address);
        command
    }

    pub fn run(&self, project: &Project, script: &str, token: Option<&str>) -> Outcome {
        let mut command = self.command(project, script);
        token.map(|token| command.env("HF_TOKEN", token));
        Outcome::of(command.output().unwrap())
    }

    #[track_caller]
    pub fn refuses(&self, script: &str, token: Option<&str>, message: &str, hint: &str) {
        let outcome = self.run(&Project::new(), script, token).ends(FAILED);
        assert!(outcome.stderr.contains(message), "{message:?} in {}", outcome.stderr);
        let told = outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: "));
        assert!(told.is_some_and(|told| told.contains(hint)), "{hint:?} in {}", outcome.stderr);
    }

    /// Method and file of every request to the hub since the last call.
    pub fn asked(&self) -> Vec<(String, String)> {
        let file = |path: &str| path.rsplit('/').next().unwrap().to_string();
        self.requests.lock().unwrap().drain(..).map(|r| (r.method, file(&r.path))).collect()
    }
}

impl Shared {
    fn answer(&self, request: &Request, stream: &mut TcpStream) -> bool {
        self.requests.lock().unwrap().push(request.clone());
        let mut mood = self.mood.lock().unwrap();
        let refused = if mood.limited > 0 {
            mood.limited -= 1;
            Some(Reply::error("429 Too Many Requests", "", "slow down").with("RateLimit", "\"resolvers\";r=0;t=0"))
        } else if mood.busy > 0 {
            mood.busy -= 1;
            Some(Reply::error("503 Service Unavailable", "", ""))
        } else {
            None
        };
        let calm = mood.clone();
        drop(mood);
        let hostile: Vec<_> = calm.hostile.iter().filter(|hostile| hostile.is_about(request)).collect();
        if let Some(open) = hostile.iter().find_map(|hostile| hostile.instead(request, stream)) {
            return open;
        }
        let reply = refused.unwrap_or_else(|| self.reply(request, &calm));
        write(stream, request, &hostile.iter().fold(reply, |reply, hostile| hostile.change(request, reply)))
    }

    /// `/owner/name/resolve/REVISION/FILE`, `/api/models/owner/name[/revision/REVISION]`, `/api/…/tree/COMMIT/FOLDER`, and
    /// the same for datasets.
    fn reply(&self, request: &Request, mood: &Mood) -> Reply {
        let no_model = || Reply::error("401 Unauthorized", "RepoNotFound", "Repository not found");
        if let Some(reply) = self.moved(request) {
            return reply;
        }
        let path = request.path.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').splitn(8, '/').collect();
        let (id, rest) = match &parts[..] {
            ["api", "resolve-cache", "models", owner, name, _, file @ ..] => {
                let Some(Model::Folder(folder)) = self.models.lock().unwrap().get(&format!("{owner}/{name}")).cloned()
                else {
                    return no_model();
                };
                return self.small_file(&folder.join(file.join("/")), request);
            }
            ["api", "models", owner, name, rest @ ..] => (format!("{owner}/{name}"), rest),
            ["api", "datasets", owner, name, rest @ ..] => (format!("datasets/{owner}/{name}"), rest),
            ["datasets", owner, name, rest @ ..] => (format!("datasets/{owner}/{name}"), rest),
            [owner, name, rest @ ..] => (format!("{owner}/{name}"), rest),
            _ => return no_model(),
        };
        let authorization = request.header("authorization");
        if authorization.is_some_and(|token| !token.contains(TOKEN)) {
            return Reply::error("401 Unauthorized", "", "Invalid credentials in Authorization header");
        }
        let model = self.models.lock().unwrap().get(&id).cloned();
        let (folder, sorry) = match model {
            None if id.ends_with("/gone") => {
                return Reply::error("404 Not Found", "RepoNotFound", "Repository not found");
            }
            None | Some(Model::Private) => return no_model(),
            Some(Model::Gated) if authorization.is_none() => {
                return Reply::error("401 Unauthorized", "GatedRepo", "Access to this model is restricted");
            }
            Some(Model::Gated) => {
                return Reply::error("403 Forbidden", "GatedRepo", "you are not in the authorized list");
            }
            Some(Model::Moved(_)) => return no_model(),
            Some(Model::Folder(folder)) => (folder, None),
            Some(Model::Sorry(folder, end)) => (folder, Some(end)),
        };
        let (revision, file) = match rest {
            [] => ("main", None),
            ["revision", revision] => (*revision, None),
            ["discussions"] => return self.small_file(&folder.join("discussions.json"), request),
            ["tree", "main" | "v1" | COMMIT] => return tree(&folder, ""),
            ["tree", COMMIT, below] => return tree(&folder, &decoded(below)),
            ["resolve", revision, file @ ..] if !file.is_empty() => (*revision, Some(decoded(&file.join("/")))),
            _ => return no_model(),
        };
        if !["main", "v1", COMMIT].contains(&revision) {
            return Reply::error("404 Not Found", "RevisionNotFound", "Invalid rev id");
        }
        let Some(file) = file else {
            return Reply::new("200 OK", format!("{{\"id\": \"{id}\", \"sha\": \"{COMMIT}\"}}"));
        };
        let path = folder.join(&file);
        if !path.is_file() {
            return Reply::error("404 Not Found", "EntryNotFound", "Entry not found").with("X-Repo-Commit", COMMIT);
        }
        if sorry.is_some_and(|end| file.ends_with(end)) && request.method == "GET" {
            return Reply::new("403 Forbidden", "<html>The hub is having a rest.</html>");
        }
        if sorry.is_none() && is_large(&path) {
            return self.large_file(&path, mood);
        }
        if mood.relative_redirects && !id.starts_with("datasets/") {
            let target = format!("/api/resolve-cache/models/{id}/{COMMIT}/{file}");
            return Reply::new("307 Temporary Redirect", "").with("Location", target).with("X-Repo-Commit", COMMIT);
        }
        self.small_file(&path, request)
    }

    /// The answer for a model or dataset that has moved: the same address under its new name.
    fn moved(&self, request: &Request) -> Option<Reply> {
        let models = self.models.lock().unwrap();
        let moved = models.iter().filter_map(|(id, model)| match model {
            Model::Moved(now) => Some((id, *now)),
            _ => None,
        });
        for (id, now) in moved {
            let api = |id: &str| {
                if id.starts_with("datasets/") { format!("/api/{id}/") } else { format!("/api/models/{id}/") }
            };
            for (before, after) in [(format!("/{id}/"), format!("/{now}/")), (api(id), api(now))] {
                if let Some(rest) = request.path.strip_prefix(&before) {
                    let reply = Reply::new("307 Temporary Redirect", "");
                    return Some(reply.with("Location", format!("{after}{rest}")));
                }
            }
        }
        None
    }

    /// A redirect to the other host.
    fn large_file(&self, path: &Path, mood: &Mood) -> Reply {
        let mut etag = self.hash(path);
        if mood.wrong_hash.is_some_and(|end| path.to_str().unwrap().ends_with(end)) {
            etag = etag.chars().rev().collect();
        }
        let size = std::fs::metadata(path).unwrap().len();
        let reply = Reply::new("302 Found", "")
            .with("Location", self.cdn.sign(path))
            .with("X-Repo-Commit", COMMIT)
            .with("X-Linked-Etag", format!("\"{etag}\""))
            .with("X-Linked-Size", size.to_string())
            .with("Accept-Ranges", "bytes");
        match mood.xet {
            true => reply
                .with("X-Xet-Hash", "d".repeat(64))
                .with("Link", "<https://127.0.0.1:9/api/xet-read-token/x>; rel=\"xet-auth\""),
            false => reply,
        }
    }

    /// Small files are sent by the hub itself, under the hash that git has for them.
    fn small_file(&self, path: &Path, request: &Request) -> Reply {
        let Ok(body) = std::fs::read(path) else { return Reply::error("404 Not Found", "EntryNotFound", "") };
        let etag = git_hash(&body);
        let known = request.header("if-none-match").is_some_and(|known| known.trim_matches('"') == etag);
        let size = body.len() as u64;
        let reply = match request.range().filter(|(first, _)| *first < size) {
            _ if known => Reply::new("304 Not Modified", ""),
            Some((first, last)) => {
                let last = last.min(size - 1);
                Reply::new("206 Partial Content", &body[first as usize..=last as usize])
                    .with("Content-Range", format!("bytes {first}-{last}/{size}"))
            }
            None => Reply::new("200 OK", body),
        };
        reply.with("ETag", format!("\"{etag}\"")).with("X-Repo-Commit", COMMIT)
    }

    fn hash(&self, path: &Path) -> String {
        if let Some(hash) = self.hashes.lock().unwrap().get(path) {
            return hash.clone();
        }
        let hash: String = Sha256::digest(std::fs::read(path).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        self.hashes.lock().unwrap().insert(path.to_path_buf(), hash.clone());
        hash
    }
}

/// The name of a blob in git.
pub fn git_hash(data: &[u8]) -> String {
    let hash = Sha1::new_with_prefix(format!("blob {}\0", data.len())).chain_update(data).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Which files the hub keeps elsewhere.
fn is_large(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["safetensors", "parquet", "gz", "bin", "gguf"].contains(&extension) || path.ends_with("tokenizer.json")
}

/// The files below a folder, as the API lists them.
fn tree(root: &Path, below: &str) -> Reply {
    let mut folders = vec![root.join(below)];
    if !folders[0].is_dir() {
        return Reply::error("404 Not Found", "EntryNotFound", "");
    }
    let mut list = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_dir() {
                list.push(serde_json::json!({ "type": "directory", "path": name, "size": 0 }));
                folders.push(path);
            } else {
                let size = std::fs::metadata(&path).unwrap().len();
                list.push(serde_json::json!({ "type": "file", "path": name, "size": size, "oid": "0".repeat(40) }));
            }
        }
    }
    Reply::new("200 OK", serde_json::Value::from(list).to_string())
}
