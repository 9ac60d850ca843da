//! A hub that lies: statuses, headers, sizes, redirects and JSON that no honest hub sends, and
//! bodies that end too early or never begin.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::chance::{Chance, hash};
use crate::mutate;
use crate::process::Start;
use crate::workshop::{TRAINED, Workshop, read, write};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Lies of one case, so that a client which tries again comes to its end.
const LIES: u64 = 4;

const HEADERS: &[&str] = &[
    "X-Repo-Commit",
    "X-Linked-Etag",
    "X-Linked-Size",
    "ETag",
    "Content-Length",
    "Content-Range",
    "Location",
    "Link",
    "Accept-Ranges",
    "Content-Encoding",
    "Transfer-Encoding",
    "X-Error-Code",
    "X-Error-Message",
    "RateLimit",
    "Retry-After",
    "Content-Type",
    "Connection",
];

const SAID: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "4611686018427387904",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "1099511627776",
    "3.5",
    "../../../x",
    "/etc/passwd",
    "\"../../../../home/.bashrc\"",
    "..",
    ".",
    "\"\"",
    "W/\"x\"",
    "main",
    "x y",
    "chunked",
    "gzip",
    "bytes 0-9/10",
    "bytes 0-18446744073709551615/18446744073709551615",
    "bytes 18446744073709551614-18446744073709551615/1",
    "bytes */0",
    "/",
    "//",
    "http://",
    "http://127.0.0.1:9/x",
    "file:///etc/passwd",
    "https://[::1",
    "<http://127.0.0.1:9/>; rel=\"next\"",
    "<x>; rel=\"next\"",
    ">; <; rel=\"next\"",
    "\"resolvers\";r=0;t=18446744073709551615",
    "\"resolvers\";r=0;t=3",
    "GatedRepo",
    "RepoNotFound",
    "EntryNotFound",
    "Wed, 21 Oct 2099 07:28:00 GMT",
    "\u{1b}[31mred",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "nul",
    "close",
];

const STATUSES: &[u16] = &[
    100, 101, 102, 199, 200, 201, 204, 206, 207, 226, 300, 301, 302, 303, 304, 307, 308, 399, 400, 401, 403, 404, 408,
    409, 410, 412, 416, 418, 421, 425, 429, 451, 499, 500, 501, 502, 503, 504, 520, 599, 600, 999,
];

pub fn hub(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let table = workshop.root().join("table/results");
    let hub = Hub {
        model: workshop.model(chance.pick(&["olmoe", "llama", "gpt_oss_bf16", TRAINED])),
        table,
        seed: chance.word(),
        lies: AtomicU64::new(0),
        often: 1 + chance.below(6),
        stop: AtomicBool::new(false),
    };
    let (address, guard) = serve(Arc::new(hub));
    let stream = chance.pick(&["false", "true"]);
    let text = match chance.below(4) {
        0 => format!(
            "print(estimate_vram(\"lab/model\", #{{ stream: {stream}, num_sequences: 2, sequence_length: 8 }}).total_bytes);"
        ),
        1 => {
            let options = chance.pick(&[
                "",
                "shuffle: true, ",
                "split: \"train\", config: \"default\", ",
                "file: \"data/t.parquet\", ",
            ]);
            format!(
                "let model = load_model(\"lab/model\", #{{ stream: {stream} }});\n\
                 let t = load_tokens(#{{ dataset: \"lab/text\", model: model, {options}num_sequences: 2, sequence_length: 6 }});\nprint(t.num_sequences);"
            )
        }
        _ => format!(
            "let model = load_model(\"lab/model\", #{{ stream: {stream} }});\n\
             print(model.extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3], [4, 5, 6]] }})).norms.len());"
        ),
    };
    write(folder.join("s.rhai"), text);
    let start = Start {
        beside: Some(Box::new(guard)),
        may_write: vec!["hf", "home", "cache", "results", "logs"],
        ..Start::of(&["run", "s.rhai"])
    };
    // A hub may ask for patience; its user may have none.
    start
        .variable("HF_ENDPOINT", address)
        .variable("HF_HUB_OFFLINE", "0")
        .variable("HF_TOKEN", "hf_x")
        .interrupted(10.0)
}

struct Hub {
    model: PathBuf,
    table: PathBuf,
    seed: u64,
    lies: AtomicU64,
    /// One answer in so many is a lie.
    often: usize,
    stop: AtomicBool,
}

/// Stops its server when it is dropped.
struct Guard(Arc<Hub>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(hub: Arc<Hub>) -> (String, Guard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let guard = Guard(hub.clone());
    std::thread::spawn(move || {
        while !hub.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let hub = hub.clone();
                    std::thread::spawn(move || hub.connection(stream));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(3)),
            }
        }
    });
    (address, guard)
}

/// The hash by which git and the hub call a small file.
fn git_hash(data: &[u8]) -> String {
    let digest = Sha1::new_with_prefix(format!("blob {}\0", data.len())).chain_update(data).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value.into());
        self
    }

    fn set(&mut self, name: &str, value: String) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_string(), value));
    }
}

impl Hub {
    fn connection(&self, mut stream: TcpStream) {
        let timeout = Some(Duration::from_secs(20));
        let _ = (
            stream.set_nonblocking(false),
            stream.set_read_timeout(timeout),
            stream.set_write_timeout(timeout),
            stream.set_nodelay(true),
        );
        let mut waiting = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(end) = waiting.windows(4).position(|four| four == b"\r\n\r\n") else {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => waiting.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
                continue;
            };
            let head = String::from_utf8_lossy(&waiting[..end]).into_owned();
            waiting.drain(..end + 4);
            if !self.answer(&head, &mut stream) {
                return;
            }
        }
    }

    /// Answers one request; false where the connection is over.
    fn answer(&self, head: &str, stream: &mut TcpStream) -> bool {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let range = head.lines().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_string));
        let mut reply = self.honest(path.split('?').next().unwrap_or_default(), range.as_deref());
        // What a request is answered depends on the request, and on how many lies there were before it.
        let count = self.lies.load(Ordering::Relaxed);
        let mut chance = Chance::of(self.seed ^ hash(format!("{method} {path} {range:?}").as_bytes()), "hub", count);
        let lies = chance.one_in(self.often) && self.lies.fetch_add(1, Ordering::Relaxed) < LIES;
        let mut cut = None;
        let mut raw = None;
        if lies {
            match chance.below(13) {
                0..=3 => {
                    for _ in 0..1 + chance.below(2) {
                        let value = if chance.one_in(6) { "9".repeat(5_000) } else { chance.pick(SAID).to_string() };
                        let name = *chance.pick(HEADERS);
                        reply.set(name, value);
                    }
                }
                4 => reply.status = *chance.pick(STATUSES),
                5 => {
                    reply.status = *chance.pick(&[429, 503, 500, 408]);
                    reply.set("Retry-After", chance.pick(SAID).to_string());
                }
                6 => reply.body = self.damaged(&reply.body, &mut chance),
                7 => cut = Some(chance.below(reply.body.len() + 1)),
                8 => self.astray(&mut reply, &mut chance),
                9 => self.listed(path, &mut reply, &mut chance),
                10 => {
                    // More headers, and longer ones, than anybody needs.
                    let (count, length) = *chance.pick(&[(90, 1_000), (2_000, 10), (3, 300_000)]);
                    reply.headers.extend((0..count).map(|number| (format!("X-{number}"), "x".repeat(length))));
                }
                11 => {
                    let _ = stream.write_all(format!("HTTP/1.1 {} Said\r\n", reply.status).as_bytes());
                    return self.drip(stream);
                }
                _ => {
                    raw = Some(
                        chance
                            .pick(&[
                                &b""[..],
                                b"HTTP/1.1 200 OK\r\n",
                                b"HTTP/9.9 200\r\n\r\n",
                                b"\x16\x03\x01",
                                b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
                                b"HTTP/1.1 000\r\n\r\n",
                                b"HTTP/1.1 200 OK\r\nX: \xff\xfe\r\n\r\n",
                            ])
                            .to_vec(),
                    )
                }
            }
        }
        if let Some(raw) = raw {
            let _ = stream.write_all(&raw);
            return false;
        }
        let known = reply.headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("Transfer-Encoding")
        });
        let length = if known { String::new() } else { format!("Content-Length: {}\r\n", reply.body.len()) };
        let headers: String = reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut whole = format!("HTTP/1.1 {} Said\r\n{length}{headers}\r\n", reply.status).into_bytes();
        if method != "HEAD" {
            whole.extend_from_slice(&reply.body[..cut.unwrap_or(reply.body.len())]);
        }
        stream.write_all(&whole).is_ok() && !lies
    }

    /// An answer about other bytes than were asked for.
    fn astray(&self, reply: &mut Reply, chance: &mut Chance) {
        let length = reply.body.len();
        let total = *chance.pick(&[length as u64, 0, 1 << 40, u64::MAX]);
        let first = *chance.pick(&[0, 1, length as u64, 1 << 62]);
        match chance.below(5) {
            // A whole answer in place of a range, and a range where the whole was asked for.
            0 => reply.status = 200,
            1 => {
                reply.status = 206;
                reply.set("Content-Range", format!("bytes {first}-{}/{total}", first.saturating_add(length as u64)));
            }
            2 => reply.body.extend(chance.bytes(length.clamp(1, 4_000))),
            3 => reply.body.rotate_left(length / 2),
            _ => reply.set("ETag", format!("\"{:064x}\"", chance.word())),
        }
    }

    /// A list that goes on for ever, in a circle, or has more entries and stranger names than any.
    fn listed(&self, path: &str, reply: &mut Reply, chance: &mut Chance) {
        let next = *chance.pick(&["?cursor=1", "?", "/../..", "//127.0.0.1:9/x", "?a,b"]);
        let next = if chance.one_in(2) { format!("?cursor={}", chance.word()) } else { next.to_string() };
        reply.set("Link", format!("<{path}{next}>; rel=\"next\""));
        let name =
            *chance.pick(&["../../x", "a\nb", "/etc/passwd", "a\0b.parquet", "\u{202e}x.parquet", "-x.parquet", "a"]);
        let count = *chance.pick(&[1, 3, 300_000]);
        let entry = json!({ "type": "file", "path": name, "size": u64::MAX, "oid": "x" });
        reply.body = json!(vec![entry; count]).to_string().into_bytes();
    }

    /// A head that never ends.
    fn drip(&self, stream: &mut TcpStream) -> bool {
        while !self.stop.load(Ordering::Relaxed) && stream.write_all(b"X: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// What an honest hub answers: files and lists of one model and one dataset.
    fn honest(&self, path: &str, range: Option<&str>) -> Reply {
        if path.starts_with("/api/") {
            let of_dataset = path.starts_with("/api/datasets/");
            let entry = |name: &str| json!({ "type": "file", "path": name, "size": 4_000, "oid": "0".repeat(40), "rfilename": name });
            let files: Vec<Value> = match of_dataset {
                true => vec![entry("data/t.parquet"), entry("default/train-00000.parquet"), entry("README.md")],
                false => crate::names(&self.model).iter().map(|name| entry(name)).collect(),
            };
            let body = match path.contains("/tree/") {
                true => json!(files),
                false => json!({ "id": "lab/model", "sha": COMMIT, "siblings": files }),
            };
            return Reply::new(200, body.to_string()).with("Content-Type", "application/json");
        }
        let missing = || Reply::new(404, "").with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", COMMIT);
        let Some(name) = path.split("/resolve/").nth(1).and_then(|rest| rest.split_once('/')).map(|(_, file)| file)
        else {
            return missing();
        };
        let file = if path.starts_with("/datasets/") { self.table.join("t.parquet") } else { self.model.join(name) };
        if !file.is_file() || name.contains("..") {
            return missing();
        }
        let data = read(&file);
        let digest: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
        let large = ["safetensors", "parquet"].iter().any(|end| name.ends_with(end));
        let bounds = range
            .and_then(|range| range.split_once('-'))
            .and_then(|(first, last)| Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?)));
        let reply = match bounds.filter(|(first, last)| first <= last && *first < data.len()) {
            Some((first, last)) => {
                let end = (last + 1).min(data.len());
                let reply = Reply::new(206, &data[first..end]);
                reply.with("Content-Range", format!("bytes {first}-{}/{}", end - 1, data.len()))
            }
            None => Reply::new(200, data.clone()),
        };
        let etag = if large { digest.clone() } else { git_hash(&data) };
        let reply = reply.with("X-Repo-Commit", COMMIT).with("ETag", format!("\"{etag}\""));
        match large {
            true => reply.with("X-Linked-Etag", format!("\"{digest}\"")).with("X-Linked-Size", data.len().to_string()),
            false => reply,
        }
    }

    fn damaged(&self, body: &[u8], chance: &mut Chance) -> Vec<u8> {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => mutate::json_bytes(&value, chance),
            Err(_) => mutate::bytes(body.to_vec(), 0..body.len().min(4_000), chance),
        }
    }
}
