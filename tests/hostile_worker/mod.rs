//! A worker that lies, for tests of what a machine may say in place of the truth.
//!
//! It speaks the protocol faithfully (greeting, status, tokens, leases, and each kind of call on a model of its own that holds
//! nothing), and asks a closure of the test before every answer. The program under test starts it as any worker: it sends the
//! file that `OUTLIER_WORKER` names to the machine, here `localhost`, and runs that. The file is a script which lets the real
//! program attach to a socket of this process, so the worker is a thread of the test and needs no program of its own.
//!
//! ```ignore
//! let worker = HostileWorker::start(program(), "", |answer| match answer.request.as_str() {
//!     Some("Status") => answer.nothing(),                       // stands still
//!     _ if answer.asks("Load") => answer.reply(json!({ "Estimate": {} })),
//!     _ => answer.faithful(),
//! });
//! worker.command(project.command(&["run", "script.rhai"]), &project.path("home")).output();
//! ```

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const LAYERS: usize = 2;
pub const HIDDEN: usize = 4;
const LADDER: [f64; 22] = [
    3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0,
    512.0, 1024.0,
];
/// What the first "request" of every connection is called: the greeting is to be given.
pub const GREETING: &str = "Greeting";

/// Decides what is answered; true while the connection goes on.
pub type Lie = dyn Fn(&mut Answer) -> bool + Send + Sync;

pub struct HostileWorker {
    folder: TempDir,
}

impl HostileWorker {
    /// `program` is the one under test. `there`: lines of shell that the machine runs in the project's folder there before each
    /// connection, for files that it would like to have fetched.
    pub fn start(program: &Path, there: &str, lie: impl Fn(&mut Answer) -> bool + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sockets = folder.path().join("s");
        std::fs::create_dir(&sockets).unwrap();
        std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o700)).unwrap();
        let listener = UnixListener::bind(sockets.join("worker.sock")).unwrap();
        let script = format!(
            r#"#!/bin/sh
case "$1" in --version) exec '{0}' --version;; esac
{there}
for word in "$@"; do
    shift
    case "$last" in --folder) set -- "$@" '{1}';; *) set -- "$@" "$word";; esac
    last=$word
done
exec '{0}' "$@"
"#,
            program.display(),
            sockets.display()
        );
        let file = folder.path().join("worker");
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let lie: Arc<Lie> = Arc::new(lie);
        // Both kinds of thread end with the process: a test may have left them at anything.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let lie = lie.clone();
                std::thread::spawn(move || serve(stream, &*lie));
            }
        });
        Self { folder }
    }

    /// The file to send to a machine as the program.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("worker")
    }

    /// A command of the program under test that meets this worker on the machine `localhost`, whose home folder is `home`.
    pub fn command(&self, mut command: Command, home: &Path) -> Command {
        std::fs::create_dir_all(home).unwrap();
        command.env("OUTLIER_WORKER", self.file()).env("HOME", home);
        command
    }
}

fn serve(stream: UnixStream, lie: &Lie) {
    let mut answer = Answer { stream, request: json!(GREETING), id: String::new() };
    while lie(&mut answer) {
        let Some(request) = answer.hear() else { return };
        answer.id = request["Call"]["id"].as_str().unwrap_or_default().to_string();
        answer.request = request;
    }
}

/// A request, and the connection to answer it on.
pub struct Answer {
    stream: UnixStream,
    pub request: Value,
    id: String,
}

impl Answer {
    fn hear(&mut self) -> Option<Value> {
        let mut length = [0; 8];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u64::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        rmp_serde::from_slice(&frame).ok()
    }

    /// Whether this asks for `what`: a request without content such as `Status`, one with it such as `HubToken`, or a kind of
    /// call such as `Load`.
    pub fn asks(&self, what: &str) -> bool {
        self.request == what || !self.request[what].is_null() || !self.request["Call"]["op"][what].is_null()
    }

    /// What a call asks for.
    pub fn op(&self) -> &Value {
        &self.request["Call"]["op"]
    }

    /// Bytes as they are; false once the other side has gone.
    pub fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn frame(&mut self, answer: &Value) -> bool {
        let frame = rmp_serde::to_vec_named(answer).unwrap();
        self.bytes(&(frame.len() as u64).to_le_bytes()) && self.bytes(&frame)
    }

    /// An event of the call, such as `json!({ "Warning": "…" })`.
    pub fn event(&mut self, event: Value) -> bool {
        self.frame(&json!({ "Event": { "id": self.id, "event": event } }))
    }

    /// The outcome of the call: a reply of one kind, such as `json!({ "Tokens": … })`.
    pub fn reply(&mut self, reply: Value) -> bool {
        self.frame(&json!({ "Outcome": { "id": self.id, "outcome": { "Ok": reply } } }))
    }

    /// The outcome of the call: an error.
    pub fn error(&mut self, kind: &str, message: &str) -> bool {
        let error = json!({ "kind": kind, "message": message, "hint": null });
        self.frame(&json!({ "Outcome": { "id": self.id, "outcome": { "Err": error } } }))
    }

    /// Says nothing more, and keeps the connection.
    pub fn nothing(&mut self) -> bool {
        loop {
            std::thread::park();
        }
    }

    /// What an honest worker would say.
    pub fn faithful(&mut self) -> bool {
        match self.request.as_str() {
            Some(GREETING) => {
                let mut line = Vec::new();
                while !line.ends_with(b"\n") {
                    let mut byte = [0];
                    if self.stream.read_exact(&mut byte).is_err() {
                        return false;
                    }
                    line.push(byte[0]);
                }
                // The same words on both sides: whatever version the program has is the right one.
                self.bytes(&line)
            }
            Some("Status") => self.frame(&json!({ "Status": status() })),
            _ => match honest(self.op()) {
                Some(reply) => self.reply(reply),
                None => self.frame(&json!("Done")),
            },
        }
    }
}

/// What a worker says of itself that is at nothing, on a machine with a GPU.
pub fn status() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": 1, "age": 1.0, "lease": 900.0, "at_work": [], "since_progress": 0.0,
        "models": [], "no_gpu": null,
    })
}

/// The reply to an op; None where the request is no call.
pub fn honest(op: &Value) -> Option<Value> {
    let (kind, asked) = op.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "Load" => json!({ "Model": { "info": model(asked), "folder": "there" } }),
        "Tokens" => json!({ "Tokens": tokens(asked) }),
        "Extract" => json!({ "Activations": record(asked) }),
        "Estimate" => json!({ "Estimate": {
            "id": asked["model"]["id"], "model_type": "olmoe", "num_layers": LAYERS, "hidden_size": HIDDEN, "num_experts": 0,
            "num_experts_per_tok": 0, "parameters": 1, "download_bytes": 1, "read_bytes": 1, "layer_bytes": 1,
            "resident_weight_bytes": 1, "hidden_bytes": 1, "tap_bytes": 1, "workspace_bytes": 1, "total_bytes": 1,
            "vram_bytes": 1, "flops": 1.0,
        } }),
        "Encode" => json!({ "Ids": list(&asked["texts"]).map(|_| [7]).collect::<Vec<_>>() }),
        "Decode" => json!({ "Texts": list(&asked["ids"]).map(|_| "seven").collect::<Vec<_>>() }),
        _ => {
            let path = format!("{}/{}", asked["folder"].as_str()?, asked["name"].as_str()?);
            json!({ "Miniature": { "path": path, "text": format!("{path}/text.txt"), "expected_dims": [1],
                "expected_classification": "SYSTEMATIC" } })
        }
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What a model is said to be that was asked for by these `LoadArgs`.
pub fn model(args: &Value) -> Value {
    json!({
        "id": args["id"], "revision": null, "model_type": "olmoe", "num_layers": LAYERS, "hidden_size": HIDDEN, "vocab_size": 256,
        "num_experts": 0, "num_experts_per_tok": 0, "parameters": 1, "active_parameters": 1, "weight_bytes": 1,
        "weights_stored_as": [{ "format": "F32", "parameters": 1 }], "dtype": "f32",
        "device": "cpu", "chunk_layers": 2, "synthetic": true, "files": [],
    })
}

/// Zeros of the shape that a `TokenSource` asks for.
pub fn tokens(source: &Value) -> Value {
    let ids: Vec<Vec<u32>> = match source["Ids"]["ids"].as_array() {
        Some(rows) => serde_json::from_value(rows.clone().into()).unwrap(),
        None => {
            let count = |key: &str| source["Text"][key].as_u64().unwrap_or(1) as usize;
            vec![vec![0; count("sequence_length")]; count("num_sequences")]
        }
    };
    let mut hash = Sha256::new();
    ids.iter().flatten().for_each(|id| hash.update(id.to_le_bytes()));
    let info = json!({ "source": "there", "revision": null, "num_sequences": ids.len(), "sequence_length": ids[0].len(),
        "sha256": format!("{:x}", hash.finalize()) });
    json!({ "ids": ids, "info": info })
}

/// No measurement at all.
pub fn measures() -> Value {
    json!({ "version": 1, "moments": [], "top": [], "massive": [], "attention_sinks": [], "experts": [],
        "quantisation_error": [], "super_weights": [], "modules": [] })
}

/// A record in which nothing reaches anything, of what `Op::Extract` asks for.
pub fn record(asked: &Value) -> Value {
    let info = &asked["tokens"]["info"];
    let sequences = info["num_sequences"].as_u64().unwrap() as usize;
    let thresholds = asked["args"]["thresholds"].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let mut ladder: Vec<f64> = LADDER.into_iter().chain(thresholds).collect();
    ladder.sort_by(f64::total_cmp);
    ladder.dedup();
    let sites = ["input_layernorm", "post_attention_layernorm"];
    let norm = |layer| sites.map(|site| json!({ "layer": layer, "site": site }));
    let norms: Vec<Value> = (0..LAYERS).flat_map(norm).collect();
    let empty = json!({ "features": [], "ends": [], "counts": [] });
    let cell = json!({ "max": vec![0.0; HIDDEN], "min": vec![0.0; HIDDEN], "positive": empty, "negative": empty });
    let fold = json!({ "norms": vec![vec![cell; sequences]; norms.len()], "any_norm": vec![empty; sequences] });
    let full = asked["args"]["keep"] == "full";
    json!({
        "model": model(&asked["model"]), "tokens": info, "norms": norms, "num_layers": LAYERS, "hidden_size": HIDDEN,
        "num_sequences": sequences, "sequence_length": info["sequence_length"], "ladder": ladder, "all": fold,
        "without_first": fold, "non_finite": [], "expert_coverage": [], "mean_nll": null,
        "sites": [], "measures": measures(),
        "full_activations": if full { asked["args"]["out"].clone() } else { Value::Null },
        "measurements": {
            "wall_seconds": 1.0, "waited_for_weights_seconds": 0.0, "waited_for_compute_seconds": 0.0, "bytes_read": 1,
            "bytes_needed": 1, "read_bytes_per_second": 1.0, "tokens_per_second": 1.0, "peak_memory_bytes": 1,
            "peak_vram_bytes": 0, "resumed_at_layer": null, "bytes_read_before": 0, "completion_time": "", "machine": "",
            "machine_cost_usd": 0.0,
        },
    })
}
