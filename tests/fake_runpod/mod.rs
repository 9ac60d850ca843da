//! A simulated RunPod on this machine: its REST API v2 as documented, with the same refusals, and
//! pods that are real SSH servers. Faults are queued, one for each pod that is created.

mod http;
mod pod;

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use http::{Answer, Request};
use pod::Pod;

/// The only key that is accepted.
pub const KEY: &str = "rpa_SECRETSECRETSECRETSECRET42";

/// What goes wrong with the next pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NoCapacity,
    NoFunds,
    TooManyRequests,
    /// 500, and yet there is a pod.
    FailsAfterCreating,
    /// No answer, and yet there is a pod.
    DropsAfterCreating,
    /// Half an answer.
    TruncatedAnswer,
    /// 500, and there is none.
    FailsBeforeCreating,
    /// For ever PROVISIONING.
    Stuck,
    /// RUNNING, with `runtime` null for ever.
    NeverReachable,
    /// The log tells another host key.
    WrongHostKey,
    /// Costs more than the catalogue said.
    Dearer,
    /// Gone after this many milliseconds.
    Vanishes(u64),
    /// Is listed only after this many milliseconds, and yet is there.
    ListedLate(u64),
    /// The first request to end it fails.
    EndFailsOnce,
    /// Every request to end it fails.
    EndAlwaysFails,
}

pub const FAULTS: &[Fault] = &[
    Fault::NoCapacity,
    Fault::TooManyRequests,
    Fault::FailsAfterCreating,
    Fault::DropsAfterCreating,
    Fault::TruncatedAnswer,
    Fault::FailsBeforeCreating,
    Fault::Stuck,
    Fault::NeverReachable,
    Fault::WrongHostKey,
    Fault::Dearer,
    Fault::Vanishes(3000),
    Fault::ListedLate(300),
    Fault::EndFailsOnce,
];

/// What happens inside of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// As by the kernel when memory is short.
    KillWorker,
    AbortWorker,
    /// It gets no memory any more.
    StarveWorker,
    /// It stands still, and all of its threads.
    StopWorker,
    EndWorker,
    KillGuardian,
    EndGuardian,
    KillBoth,
}

pub const BLOWS: &[Blow] = &[
    Blow::KillWorker,
    Blow::AbortWorker,
    Blow::StarveWorker,
    Blow::StopWorker,
    Blow::EndWorker,
    Blow::KillGuardian,
    Blow::EndGuardian,
    Blow::KillBoth,
];

#[derive(Default)]
struct State {
    pods: Vec<Pod>,
    faults: VecDeque<Fault>,
    /// Method, path and status of every request.
    requests: Vec<(String, String, u16)>,
    /// Bodies of what was to be created.
    bodies: String,
    created: usize,
    most_at_once: usize,
    ended_by_themselves: usize,
    /// USD of pods that are gone.
    billed: f64,
    /// Where programs that were sent to one pod are found by all, as in an image.
    programs: Option<PathBuf>,
    /// Pods run what they are to run at their start, and what it sleeps for longest takes so long.
    starts: Option<Duration>,
    /// Variables that the image sets.
    environment: Vec<(String, String)>,
}

#[derive(Clone)]
pub struct FakeRunPod {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl FakeRunPod {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        let (shared, base) = (state.clone(), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, base) = (shared.clone(), base.clone());
                std::thread::spawn(move || serve(stream, &state, &base));
            }
        });
        // Pods live and die whether anybody asks or not.
        let pods = Arc::downgrade(&state);
        std::thread::spawn(move || {
            while let Some(state) = pods.upgrade() {
                state.lock().unwrap().pods.iter_mut().for_each(Pod::advance);
                drop(state);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { url, state }
    }

    pub fn with_faults(self, faults: &[Fault]) -> Self {
        self.state.lock().unwrap().faults.extend(faults);
        self
    }

    /// The program need not be sent to each pod.
    pub fn with_programs(self, folder: &Path) -> Self {
        self.state.lock().unwrap().programs = Some(folder.to_path_buf());
        self
    }

    /// Everything in pods has this variable.
    pub fn with_environment(self, name: &str, value: &str) -> Self {
        self.state.lock().unwrap().environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Pods run the command that they are created with, in which the longest sleep takes so long.
    pub fn with_starts(self, sleep: Duration) -> Self {
        self.state.lock().unwrap().starts = Some(sleep);
        self
    }

    /// Gives how many processes it has hit.
    pub fn strike(&self, blow: Blow) -> usize {
        self.state.lock().unwrap().pods.iter().map(|pod| pod.strike(blow)).sum()
    }

    /// Names of the pods that exist and cost money, other people's left out.
    pub fn alive(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.pods.iter().filter(|pod| !pod.is_gone()).map(|pod| pod.name.clone()).collect()
    }

    /// How many pods there ever were.
    pub fn created(&self) -> usize {
        self.state.lock().unwrap().created
    }

    pub fn most_at_once(&self) -> usize {
        self.state.lock().unwrap().most_at_once
    }

    /// How many pods were ended with the key that they have for themselves.
    pub fn ended_by_themselves(&self) -> usize {
        self.state.lock().unwrap().ended_by_themselves
    }

    /// How many pods are alive whose sshd answers.
    pub fn reached(&self) -> usize {
        self.state.lock().unwrap().pods.iter().filter(|pod| pod.is_up() && !pod.is_gone()).count()
    }

    pub fn bodies(&self) -> String {
        self.state.lock().unwrap().bodies.clone()
    }

    pub fn requests(&self) -> Vec<(String, String, u16)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Command lines and environments of everything that runs in pods.
    pub fn processes(&self) -> Vec<String> {
        self.state.lock().unwrap().pods.iter().flat_map(Pod::processes).collect()
    }

    /// Cuts all connections to pods, and lets new ones in again after `time`.
    pub fn cut(&self, time: Duration) {
        self.state.lock().unwrap().pods.iter_mut().for_each(Pod::cut);
        std::thread::sleep(time);
        self.state.lock().unwrap().pods.iter_mut().for_each(Pod::reopen);
    }

    /// All pods go away, with everything on them.
    pub fn switch_off(&self) {
        self.state.lock().unwrap().pods.iter_mut().for_each(Pod::end);
    }

    /// USD until now.
    pub fn billed(&self) -> f64 {
        let state = self.state.lock().unwrap();
        state.billed + state.pods.iter().map(Pod::cost).sum::<f64>()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, base: &str) {
    let Some(request) = http::read(&stream) else { return };
    let answer = answer(&request, state, base);
    let mut locked = state.lock().unwrap();
    locked.requests.push((request.method.clone(), request.path.clone(), answer.status));
    drop(locked);
    http::write(&mut stream, answer);
}

fn answer(request: &Request, state: &Mutex<State>, base: &str) -> Answer {
    let Some(key) = request.key.as_deref() else { return Answer::problem(401, "missing bearer token") };
    let state = &mut *state.lock().unwrap();
    state.pods.iter_mut().for_each(Pod::advance);
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    // A pod has a key for itself.
    let own = matches!(&parts[..], ["v2", "pods", id] if state.pods.iter().any(|pod| pod.id == *id && pod.key == key));
    if key != KEY && !(own && request.method == "DELETE") {
        return Answer::problem(401, "Invalid API key");
    }
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["v2", "catalog", "gpus"]) => catalogue(request),
        ("GET", ["v2", "pods"]) => list(request, state),
        ("POST", ["v2", "pods"]) => create(request, state, base),
        (_, ["v2", "pods"]) => Answer::problem(405, "method not allowed"),
        (method, ["v2", "pods", id, rest @ ..]) => {
            let Some(index) = state.pods.iter().position(|pod| pod.id == *id && !pod.is_gone()) else {
                return Answer::problem(404, "pod not found");
            };
            let pod = &mut state.pods[index];
            match (method, rest) {
                ("GET", []) => Answer::json(200, pod.json()),
                ("DELETE", []) if pod.fault == Some(Fault::EndAlwaysFails) => Answer::problem(500, "internal error"),
                ("DELETE", []) if pod.fault == Some(Fault::EndFailsOnce) => {
                    pod.fault = None;
                    Answer::problem(500, "internal error")
                }
                ("DELETE", []) => {
                    state.ended_by_themselves += (key != KEY) as usize;
                    state.billed += pod.cost();
                    pod.end();
                    Answer { status: 204, ..Answer::json(204, Value::Null) }
                }
                ("GET", ["logs"]) => match request.query("tail").map(|tail| tail.parse::<u32>()) {
                    Some(Ok(0..=5000)) | None => Answer::events(pod.log(request.query("source"))),
                    _ => Answer::problem(422, "Request validation failed."),
                },
                _ => Answer::problem(405, "method not allowed"),
            }
        }
        // Not shaped as a problem: the wrong door.
        _ => Answer::text(404, "404 page not found"),
    }
}

/// id, memory in GB, price in the secure and the community cloud, availability
const GPUS: &[(&str, u32, f64, f64, &str)] = &[
    ("NVIDIA A40", 48, 0.49, 0.0, "HIGH"),
    ("NVIDIA L40S", 48, 0.99, 0.79, "MEDIUM"),
    ("NVIDIA A100-SXM4-80GB", 80, 1.59, 0.0, "LOW"),
    ("NVIDIA H100 80GB HBM3", 80, 3.99, 0.0, "NONE"),
    ("NVIDIA H200", 141, 4.59, 0.0, "HIGH"),
];

fn catalogue(request: &Request) -> Answer {
    let filtered = ["count", "cloud", "minCudaVersion"].iter().any(|key| request.query(key).is_some());
    if request.query("include").is_none() && filtered
        || request.query("include").is_some() && request.query("product").is_none()
    {
        return Answer::problem(400, "filters need include=AVAILABILITY and a product");
    }
    let gpus: Vec<Value> = GPUS
        .iter()
        .map(|(id, memory, secure, community, availability)| {
            json!({
                "id": id, "name": id.trim_start_matches("NVIDIA "), "pool": null, "manufacturer": "NVIDIA", "memory": memory,
                "secure": *secure > 0.0, "community": *community > 0.0,
                "price": { "secure": secure, "community": community },
                "maxCount": { "secure": 8, "community": if *community > 0.0 { 4 } else { 0 } },
                "availability": availability,
                "cudaVersions": [{ "version": "12.8", "available": true }],
            })
        })
        .collect();
    Answer::json(200, json!({ "gpus": gpus }))
}

/// Pages are small, so that whoever reads only the first is found out. Other people's pods come first.
fn list(request: &Request, state: &State) -> Answer {
    const PAGE: usize = 2;
    let mut pods = vec![json!({
        "id": "other1training", "name": "training-box", "status": "RUNNING", "actions": ["stop", "terminate"],
        "image": "runpod/pytorch", "ssh": { "proxy": null, "direct": null }, "cost": 3.99, "runtime": null,
        "gpu": { "id": "NVIDIA H200", "count": 1 }, "env": { "WANDB_API_KEY": "not-yours" }, "createdAt": "2026-11-01T00:00:00Z",
    })];
    pods.extend(state.pods.iter().filter(|pod| !pod.is_gone() && pod.is_listed()).map(Pod::json));
    let begin: usize = request.query("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let end = (begin + PAGE).min(pods.len());
    let next = (end < pods.len()).then(|| end.to_string());
    let pagination = json!({ "nextCursor": next, "hasNextPage": next.is_some() });
    Answer::json(200, json!({ "pods": pods[begin.min(end)..end], "pagination": pagination }))
}

const CREATE_KEYS: &[&str] = &[
    "name",
    "image",
    "gpu",
    "cpu",
    "cloud",
    "dataCenterIds",
    "disk",
    "mounts",
    "ports",
    "env",
    "cmd",
    "entrypoint",
    "args",
    "startSsh",
    "startJupyter",
    "globalNetworking",
    "registry",
    "templateId",
];
const GPU_KEYS: &[&str] =
    &["id", "count", "allowedCudaVersions", "minCudaVersion", "minRamPerGpu", "minVcpuCountPerGpu"];

fn create(request: &Request, state: &mut State, base: &str) -> Answer {
    state.bodies += &String::from_utf8_lossy(&request.body);
    if request.body.len() > 102_400 {
        return Answer::problem(413, "request body too large");
    }
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&request.body) else {
        return Answer::problem(400, "invalid JSON");
    };
    let gpu_keys = body.get("gpu").and_then(Value::as_object).map(|gpu| gpu.keys()).into_iter().flatten();
    let unknown = body.keys().filter(|key| !CREATE_KEYS.contains(&key.as_str()));
    let mut unknown = unknown.chain(gpu_keys.filter(|key| !GPU_KEYS.contains(&key.as_str())));
    if let Some(key) = unknown.next() {
        return Answer::refused(&format!("$: additional properties '{key}' not allowed"));
    }
    let is_text = |key: &str| body.get(key).is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()));
    for key in ["name", "image"] {
        if !is_text(key) {
            return Answer::refused(&format!("$.{key}: is required"));
        }
    }
    if body.get("disk").is_some_and(|disk| disk.as_u64().is_none_or(|gb| gb == 0)) {
        return Answer::refused("$.disk: must be an integer of at least 1");
    }
    if body.contains_key("gpu") == body.contains_key("cpu") {
        return Answer::problem(400, "exactly one of gpu and cpu must be given");
    }
    let gpu = &body["gpu"];
    if gpu.get("minCudaVersion").is_some() && gpu.get("allowedCudaVersions").is_some() {
        return Answer::problem(400, "minCudaVersion and allowedCudaVersions exclude each other");
    }
    let cloud = body.get("cloud").and_then(Value::as_str).unwrap_or("SECURE");
    if !["SECURE", "COMMUNITY"].contains(&cloud) {
        return Answer::refused("$.cloud: must be SECURE or COMMUNITY");
    }
    let no_capacity =
        "There are no longer any instances available with the requested specifications. Please refresh and try again.";
    let kind = GPUS.iter().find(|kind| gpu["id"] == kind.0);
    let Some(kind) = kind.filter(|kind| kind.4 != "NONE" && (cloud == "SECURE" || kind.3 > 0.0)) else {
        return Answer::problem(400, no_capacity);
    };
    let fault = state.faults.pop_front();
    match fault {
        Some(Fault::NoCapacity) => return Answer::problem(400, no_capacity),
        Some(Fault::NoFunds) => {
            return Answer::problem(
                402,
                "Your account balance is too low to rent a pod. Please add funds to your account.",
            );
        }
        Some(Fault::TooManyRequests) => {
            let mut answer = Answer::problem(429, "rate limit exceeded for the minute window");
            answer.headers.push(("Retry-After", "1".to_string()));
            return answer;
        }
        Some(Fault::FailsBeforeCreating) => return Answer::text(504, "<html>Gateway Time-out</html>"),
        _ => (),
    }
    let price = if cloud == "SECURE" { kind.2 } else { kind.3 };
    let dearer = if fault == Some(Fault::Dearer) { 10.0 } else { 1.0 };
    state.created += 1;
    let pod = Pod::create(state.created, &body, price * dearer, fault, base, &state.environment);
    if let Some(folder) = &state.programs {
        pod.share_programs(folder);
    }
    if let Some(sleep) = state.starts {
        pod.run_start(sleep);
    }
    let created = Answer::json(201, pod.json());
    state.pods.push(pod);
    state.most_at_once = state.most_at_once.max(state.pods.iter().filter(|pod| !pod.is_gone()).count());
    match fault {
        Some(Fault::FailsAfterCreating) => Answer::problem(500, "create pod: something went wrong"),
        Some(Fault::DropsAfterCreating) => Answer { cut_to: Some(0), ..created },
        Some(Fault::TruncatedAnswer) => Answer { cut_to: Some(created.body.len() / 2), ..created },
        _ => created,
    }
}
