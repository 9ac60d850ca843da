//! Models from the hub, against a small hub of our own: files and headers as the real one sends them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::project::{FINAL, Outcome, Project, repository};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secretSecretSECRET";
/// Exit code of a failed model.
const FAILED: i32 = 3;

#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    authorization: Option<String>,
    if_none_match: Option<String>,
}

/// What one model on the hub does.
#[derive(Clone)]
enum Model {
    Folder(PathBuf),
    Gated,
    Private,
    /// Sends half of every file that ends so, and breaks off.
    Broken(PathBuf, &'static str),
    /// Sends a page of apologies in place of every file that ends so.
    Sorry(PathBuf, &'static str),
}

struct Hub {
    address: String,
    models: Arc<Mutex<HashMap<String, Model>>>,
    requests: Arc<Mutex<Vec<Request>>>,
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
    fn start() -> Self {
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

    fn with(self, id: &str, model: Model) -> Self {
        self.set(id, model);
        self
    }

    fn set(&self, id: &str, model: Model) {
        self.models.lock().unwrap().insert(id.to_string(), model);
    }

    fn run(&self, project: &Project, script: &str, token: Option<&str>) -> Outcome {
        project.file("script.rhai", script);
        let mut command = project.command(&["run", "script.rhai"]);
        command.env("HF_ENDPOINT", &self.address);
        token.map(|token| command.env("HF_TOKEN", token));
        Outcome::of(command.output().unwrap())
    }

    #[track_caller]
    fn refuses(&self, script: &str, token: Option<&str>, message: &str, hint: &str) {
        let outcome = self.run(&Project::new(), script, token).ends(FAILED);
        assert!(outcome.stderr.contains(message), "{message:?} in {}", outcome.stderr);
        let told = outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: "));
        assert!(told.is_some_and(|told| told.contains(hint)), "{hint:?} in {}", outcome.stderr);
    }

    /// Method and file of every request since the last call.
    fn asked(&self) -> Vec<(String, String)> {
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

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

fn analysis(id: &str, options: &str) -> String {
    format!(
        "let model = load_model(\"{id}\", {options});
         let acts = model.extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3], [4, 5, 6]] }}), #{{ logits: true }});
         let found = acts.detect_outliers();
         print(found.to_json());
         save_results(\"hub\", #{{ activations: acts, found: found }});"
    )
}

fn from_hub(options: &str) -> String {
    analysis("lab/llama", options)
}

#[test]
fn a_model_from_shards_is_the_model_in_a_folder() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    project.copy("tests/fixtures/llama", "local");
    let local = project.script(&analysis("local", "#{}")).ok();
    assert_eq!(hub.run(&project, &from_hub("#{}"), None).ok(), local);
    let whole = project.json(&format!("results/hub/{FINAL}"));
    let model = &whole["provenance"]["model"];
    assert_eq!((&model["id"], &model["revision"]), (&"lab/llama".into(), &COMMIT.into()));
    assert_eq!(project.json("results/hub/config.json")["model"]["revision"], COMMIT);
    assert_eq!(model["files"].as_array().unwrap().len(), 4, "config, index and two shards: {model}");
}

#[test]
fn a_single_file_and_its_tokenizer() {
    let hub = Hub::start().with("lab/llama", Model::Folder(repository().join("examples/shakespeare-olmoe")));
    let project = Project::new();
    project.file("text.txt", "To be, or not to be, that is the question.");
    let script = "let model = load_model(\"lab/llama\");
                  let tokens = load_tokens(#{ text: \"text.txt\", model: model, num_sequences: 1, sequence_length: 8 });
                  print(tokens.ids[0].len());";
    assert_eq!(hub.run(&project, script, None).ok(), "8\n");
}

#[test]
fn the_second_run_uses_the_cache() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    let first = hub.run(&project, &from_hub("#{}"), None).ok();
    let fetched: Vec<String> =
        hub.asked().into_iter().filter(|(method, _)| method == "GET").map(|(_, file)| file).collect();
    assert_eq!(
        fetched,
        [
            "config.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]
    );
    assert_eq!(hub.run(&project, &from_hub("#{}"), None).ok(), first);
    let asked = hub.asked();
    assert!(asked.iter().all(|(method, _)| method == "HEAD"), "{asked:?}");
    assert!(asked.contains(&("HEAD".to_string(), "config.json".to_string())), "a branch may have moved: {asked:?}");
    // A commit never moves: what is there is not asked for, even without a hub.
    let pinned =
        project.file("script.rhai", format!("print(load_model(\"lab/llama\", #{{ revision: \"{COMMIT}\" }}).path);"));
    hub.run(pinned, &pinned.text("script.rhai"), None).ok();
    let asked = hub.asked();
    assert!(asked.iter().all(|(_, file)| file == "tokenizer.json"), "only what was not there: {asked:?}");
}

#[test]
fn other_revisions() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    hub.run(&project, &from_hub("#{ revision: \"v1\" }"), None).ok();
    let paths: Vec<_> = hub.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    assert!(paths.contains(&"/lab/llama/resolve/v1/config.json".to_string()), "{paths:?}");
    assert_eq!(project.json(&format!("results/hub/{FINAL}"))["provenance"]["model"]["revision"], COMMIT);
    let message = "model \"lab/llama\": fetching config.json from the hub: no revision \"v2\"";
    hub.refuses(&from_hub("#{ revision: \"v2\" }"), None, message, "give a branch, tag or commit of this model");
}

#[test]
fn all_files_are_of_one_commit() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    hub.run(&Project::new(), &from_hub("#{}"), None).ok();
    let paths: Vec<_> = hub.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    let others = paths.iter().filter(|path| !path.ends_with("/config.json"));
    assert!(others.clone().count() >= 3 && others.clone().all(|path| path.contains(COMMIT)), "{paths:?}");
}

#[test]
fn models_that_do_not_exist() {
    let hub = Hub::start().with("lab/secret", Model::Private);
    let hint = "check the id; for a private model set HF_TOKEN";
    for id in ["lab/lama", "lab/gone", "lab/secret"] {
        let message = format!("model \"{id}\": fetching config.json from the hub: no such model, or it is private");
        hub.refuses(&analysis(id, "#{}"), None, &message, hint);
        hub.refuses(&analysis(id, "#{}"), Some(TOKEN), &message, hint);
    }
}

#[test]
fn models_without_safetensors() {
    let project = Project::new();
    project.copy("tests/fixtures/llama/config.json", "pickle/config.json").file("pickle/pytorch_model.bin", "…");
    let hub = Hub::start().with("lab/llama", Model::Folder(project.path("pickle")));
    let message = "fetching model.safetensors from the hub: the model has no such file";
    hub.refuses(&from_hub("#{}"), None, message, "only safetensors checkpoints can be read");
}

#[test]
fn a_shard_that_is_missing() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "part");
    std::fs::remove_file(project.path("part/model-00002-of-00002.safetensors")).unwrap();
    let hub = Hub::start().with("lab/llama", Model::Folder(project.path("part")));
    let message = "fetching model-00002-of-00002.safetensors from the hub: the model has no such file";
    hub.refuses(&from_hub("#{}"), None, message, "");
}

#[test]
fn an_index_that_leads_out_of_the_cache() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "evil");
    project.file("evil/model.safetensors.index.json", r#"{"weight_map": {"a": "../../../../evil"}}"#);
    let hub = Hub::start().with("lab/llama", Model::Folder(project.path("evil")));
    hub.refuses(&from_hub("#{}"), None, "`../../../../evil` is not a file of this model", "is this model complete?");
}

#[test]
fn gated_models() {
    let hub = Hub::start().with("lab/llama", Model::Gated);
    let hint = "accept the model's terms on the hub and set HF_TOKEN";
    let message = "model \"lab/llama\": fetching config.json from the hub: access refused";
    hub.refuses(&from_hub("#{}"), None, message, hint);
    hub.refuses(&from_hub("#{}"), Some(TOKEN), message, hint);
    let script = "try { load_model(\"lab/llama\") } catch (e) { print(e.kind) }";
    assert_eq!(hub.run(&Project::new(), script, None).ok(), "auth\n");
}

#[test]
fn the_token_is_sent_and_never_shown() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    hub.run(&project, &from_hub("#{}"), Some(TOKEN)).ok();
    let sent = Some(format!("Bearer {TOKEN}"));
    assert!(hub.requests.lock().unwrap().iter().all(|request| request.authorization == sent));
    hub.set("lab/gated", Model::Gated);
    for id in ["lab/llama", "lab/gated", "lab/lama"] {
        let script = format!("print(load_model(\"{id}\").to_json());");
        let outcome = hub.run(&project, &script, Some(TOKEN));
        assert!(!outcome.stdout.contains(TOKEN) && !outcome.stderr.contains(TOKEN), "{}", outcome.stderr);
    }
    for file in project.files("") {
        let data = project.bytes(&file);
        assert!(!data.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "the token is in {file}");
    }
}

#[test]
fn a_wrong_token() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let message = "fetching config.json from the hub: the token is not valid";
    hub.refuses(&from_hub("#{}"), Some("hf_expired"), message, "unset it: public models need none");
}

#[test]
fn a_download_that_breaks_off_is_not_kept() {
    let hub = Hub::start().with("lab/llama", Model::Broken(fixture("llama"), "00002.safetensors"));
    let project = Project::new();
    let outcome = hub.run(&project, &from_hub("#{}"), None).ends(FAILED);
    assert!(outcome.stderr.contains("fetching model-00001-of-00002.safetensors from the hub"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: is the network reachable?"), "{}", outcome.stderr);
    hub.set("lab/llama", Model::Folder(fixture("llama")));
    hub.run(&project, &from_hub("#{}"), None).ok();
}

#[test]
fn an_error_page_in_place_of_a_file_is_not_kept() {
    for end in ["config.json", "00002.safetensors"] {
        let hub = Hub::start().with("lab/llama", Model::Sorry(fixture("llama"), end));
        let project = Project::new();
        hub.run(&project, &from_hub("#{}"), None).ends(FAILED);
        hub.set("lab/llama", Model::Folder(fixture("llama")));
        hub.run(&project, &from_hub("#{}"), None).ok();
    }
}

#[test]
fn a_hub_that_does_not_answer() {
    let message = "model \"lab/llama\": fetching config.json from the hub: ";
    let hint = "is the network reachable? a model that is already in a folder can be given by its path";
    Project::new().refuses(&from_hub("#{}"), FAILED, message, hint);
}

#[test]
fn a_folder_wins_over_the_hub() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("mixtral")));
    let project = Project::new();
    project.copy("tests/fixtures/llama", "lab/llama");
    let script = "let m = load_model(\"lab/llama\"); print(m.model_type); print(m.revision);";
    assert_eq!(hub.run(&project, script, None).ok(), "llama\n\n");
    assert!(hub.asked().is_empty());
}
