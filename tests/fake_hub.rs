//! A small hub on this machine: files and headers as the real one sends them, and its ways to refuse.
//!
//! Answers follow huggingface_hub's `utils/_http.py`, which says how the hub's errors are told apart.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::project::{Outcome, Project};

/// The only commit of every model, by this name or as `main` or `v1`.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only token that is accepted.
pub const TOKEN: &str = "hf_secretSecretSECRET";
/// Exit code of a failed model.
pub const FAILED: i32 = 3;

#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    pub path: String,
    pub authorization: Option<String>,
    if_none_match: Option<String>,
}

/// What one model on the hub does.
#[derive(Clone)]
pub enum Model {
    Folder(PathBuf),
    Gated,
    Private,
    /// Sends half of every file that ends so, and breaks off.
    Broken(PathBuf, &'static str),
    /// Sends a page of apologies in place of every file that ends so.
    Sorry(PathBuf, &'static str),
}

pub struct Hub {
    address: String,
    models: Arc<Mutex<HashMap<String, Model>>>,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How many bytes of the body are sent.
    sent: usize,
}

impl Reply {
    fn error(status: &'static str, code: &str, message: &str) -> Self {
        let mut headers = vec![("X-Error-Message", message.to_string())];
        if !code.is_empty() {
            headers.push(("X-Error-Code", code.to_string()));
        }
        Self { status, headers, body: Vec::new(), sent: 0 }
    }

    fn file(body: Vec<u8>, known: &Option<String>) -> Self {
        let etag: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = vec![("ETag", format!("\"{etag}\"")), ("X-Repo-Commit", COMMIT.to_string())];
        let unchanged = known.as_ref().is_some_and(|known| known.trim_matches('"') == etag);
        let sent = body.len();
        Self { status: if unchanged { "304 Not Modified" } else { "200 OK" }, headers, body, sent }
    }
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            models: Arc::default(),
            requests: Arc::default(),
        };
        let (models, requests) = (hub.models.clone(), hub.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (models, requests) = (models.clone(), requests.clone());
                std::thread::spawn(move || answer(stream, &models, &requests));
            }
        });
        hub
    }

    pub fn with(self, id: &str, model: Model) -> Self {
        self.set(id, model);
        self
    }

    pub fn set(&self, id: &str, model: Model) {
        self.models.lock().unwrap().insert(id.to_string(), model);
    }

    pub fn run(&self, project: &Project, script: &str, token: Option<&str>) -> Outcome {
        project.file("script.rhai", script);
        let mut command = project.command(&["run", "script.rhai"]);
        command.env("HF_ENDPOINT", &self.address);
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

    /// Method and file of every request since the last call.
    pub fn asked(&self) -> Vec<(String, String)> {
        let file = |path: &str| path.rsplit('/').next().unwrap().to_string();
        self.requests.lock().unwrap().drain(..).map(|r| (r.method, file(&r.path))).collect()
    }
}

fn answer(stream: TcpStream, models: &Mutex<HashMap<String, Model>>, requests: &Mutex<Vec<Request>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_string);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string())))
        .collect();
    let header = |name: &str| headers.get(name).cloned();
    let request =
        Request { method, path, authorization: header("authorization"), if_none_match: header("if-none-match") };
    requests.lock().unwrap().push(request.clone());
    let reply = reply(&request, &models.lock().unwrap().clone());
    let mut head =
        format!("HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if request.method == "GET" {
        let _ = stream.write_all(&reply.body[..reply.sent]);
    }
}

/// `/owner/name/resolve/REVISION/FILE` and `/api/models/owner/name[/revision/REVISION]`.
fn reply(request: &Request, models: &HashMap<String, Model>) -> Reply {
    let no_model = || Reply::error("401 Unauthorized", "RepoNotFound", "Repository not found");
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let (id, rest) = match &parts[..] {
        ["api", "models", owner, name, rest @ ..] => (format!("{owner}/{name}"), rest),
        [owner, name, rest @ ..] => (format!("{owner}/{name}"), rest),
        _ => return no_model(),
    };
    if request.authorization.as_ref().is_some_and(|token| !token.contains(TOKEN)) {
        return Reply::error("401 Unauthorized", "", "Invalid credentials in Authorization header");
    }
    let folder = match models.get(&id) {
        None if id.ends_with("/gone") => return Reply::error("404 Not Found", "RepoNotFound", "Repository not found"),
        None | Some(Model::Private) => return no_model(),
        Some(Model::Gated) if request.authorization.is_none() => {
            return Reply::error("401 Unauthorized", "GatedRepo", "Access to this model is restricted");
        }
        Some(Model::Gated) => return Reply::error("403 Forbidden", "GatedRepo", "you are not in the authorized list"),
        Some(Model::Folder(folder) | Model::Broken(folder, _) | Model::Sorry(folder, _)) => folder,
    };
    let (revision, file) = match rest {
        [] => ("main", None),
        ["revision", revision] => (*revision, None),
        ["resolve", revision, file] => (*revision, Some(*file)),
        _ => return no_model(),
    };
    if !["main", "v1", COMMIT].contains(&revision) {
        return Reply::error("404 Not Found", "RevisionNotFound", "Invalid rev id");
    }
    let Some(file) = file else {
        return Reply::file(format!("{{\"id\": \"{id}\", \"sha\": \"{COMMIT}\"}}").into_bytes(), &None);
    };
    let Ok(body) = std::fs::read(folder.join(file)) else {
        let mut reply = Reply::error("404 Not Found", "EntryNotFound", "Entry not found");
        reply.headers.push(("X-Repo-Commit", COMMIT.to_string()));
        return reply;
    };
    let mut reply = Reply::file(body, &request.if_none_match);
    match models.get(&id) {
        Some(Model::Broken(_, end)) if file.ends_with(end) => reply.sent /= 2,
        Some(Model::Sorry(_, end)) if file.ends_with(end) && request.method == "GET" => {
            let body = b"<html>The hub is having a rest.</html>".to_vec();
            reply = Reply { status: "403 Forbidden", headers: Vec::new(), sent: body.len(), body };
        }
        _ => (),
    }
    reply
}
