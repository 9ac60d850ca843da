//! Both ends of the wire: a malicious worker against the client, which this test runs in place of
//! the program that the client sends to a machine; and a malicious client against `outlier worker
//! serve`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chance::{Chance, hash};
use crate::frames::{Talk, frame, kind, receive, send};
use crate::mutate;
use crate::process::Start;
use crate::workshop::{TEXT, TRAINED, Workshop, read, write};

/// Where this variable is set, this test is a hostile worker: its number, then the file of what an honest one says.
pub const HOSTILE: &str = "OUTLIER_FUZZ_WORKER";
/// An honest client is answered within this time.
const ANSWER: Duration = Duration::from_secs(15);

/// Work that says all kinds of things to a worker.
pub fn work(model: &str, trained: &str) -> String {
    format!(
        r#"
        let gpu = provision_gpu(#{{ provider: "ssh", host: "localhost", patience_minutes: 0.02, lease_minutes: 0.2 }});
        print(gpu.estimate_vram("{model}", #{{ num_sequences: 2, sequence_length: 8 }}).total_bytes);
        let trained = gpu.load_model("{trained}");
        let text = load_tokens(#{{ text: "t.txt", model: trained, num_sequences: 2, sequence_length: 8 }});
        print(text.num_sequences);
        let model = gpu.load_model("{model}");
        let acts = model.extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3], [4, 5, 6]] }}),
            #{{ logits: true, thresholds: [0.5], checkpoint: "ck", checkpoint_layers: 1 }});
        let found = acts.detect_outliers(#{{ magnitude_threshold: 0.5 }});
        print(found.num_features);
        print(acts.perplexity(#{{ n_resamples: 20 }}).to_json().len());
        print(acts.heat_map(#{{ columns: 8 }}).to_json().len());
        print(acts.bootstrap_ci(#{{ magnitude_threshold: 0.5, n_resamples: 20 }}).num_features);
        save_results("x", #{{ activations: acts, found: found }});
        print(gpu.models().len());
        print(gpu.miniature_model("olmoe").path);
        "#
    )
}

pub fn hostile_worker(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    write(folder.join("t.txt"), TEXT.repeat(20));
    let (model, trained) = (workshop.model("olmoe"), workshop.model(TRAINED));
    write(folder.join("s.rhai"), work(&model.display().to_string(), &trained.display().to_string()));
    let start = Start {
        leaves_processes: true,
        may_write: vec!["home", "results", "logs", "ck", "ck.partial", "hf", "cache"],
        ..Start::of(&["run", "s.rhai"])
    };
    let case = format!("{}:{}", chance.word(), workshop.root().join("talk.json").display());
    start.variable("OUTLIER_WORKER", workshop.root().join("hostile")).variable(HOSTILE, case).interrupted(8.0)
}

/// What the hostile worker of one case does, on each of its connections.
struct Villain {
    seed: u64,
    talk: Talk,
    /// The kind of request that it lies about; about all of them now and then where there is none.
    victim: Option<String>,
}

/// Answers the client on the standard streams, as `case` says.
pub fn play_worker(case: &str) {
    let (seed, talk) = case.split_once(':').expect("a number and a file");
    let seed: u64 = seed.parse().expect("a number");
    let talk = Talk::from_json(&read(talk));
    let mut chance = Chance::of(seed, "villain", 0);
    let kinds: Vec<String> = talk.answers.keys().cloned().chain(["greeting".to_string()]).collect();
    let victim = (!chance.one_in(4)).then(|| chance.pick(&kinds).clone());
    let villain = Villain { seed, talk, victim };
    // A client that goes away is the end of it.
    let _ = villain.play(&mut std::io::stdin().lock(), &mut std::io::stdout().lock());
}

impl Villain {
    fn lies_about(&self, kind: &str, chance: &mut Chance) -> bool {
        self.victim.as_ref().map_or_else(|| kind != "greeting" && chance.one_in(4), |victim| victim == kind)
    }

    fn play(&self, input: &mut impl Read, output: &mut impl Write) -> std::io::Result<()> {
        let mut greeting = Vec::new();
        while greeting.last() != Some(&b'\n') {
            let mut byte = [0];
            input.read_exact(&mut byte)?;
            greeting.push(byte[0]);
        }
        let mut chance = Chance::of(self.seed, "greeting", 0);
        if self.lies_about("greeting", &mut chance) {
            let end = greeting.len();
            greeting = match chance.below(5) {
                0 => b"x".repeat(1 << 20),
                1 => Vec::new(),
                2 => b"outlier worker protocol 99999999999999999999 version \x1b[31mx\n".to_vec(),
                _ => mutate::bytes(greeting, 0..end, &mut chance),
            };
        }
        output.write_all(&greeting)?;
        output.flush()?;
        for number in 1.. {
            let Some(request) = receive(input) else { break };
            let kind = kind(&request);
            let mut answers = self.talk.answers.get(&kind).cloned().unwrap_or_else(|| vec![json!("Done")]);
            if let Some(id) = request["Call"].get("id") {
                answers.iter_mut().for_each(|answer| address(answer, id));
            }
            // The same request gets the same answer on every connection, the more so as clients try again.
            let mut chance = Chance::of(self.seed ^ hash(kind.as_bytes()), "answer", number);
            let lies = self.lies_about(&kind, &mut chance);
            if !(if lies { self.lie(answers, &request, output, &mut chance)? } else { say(&answers, output)? }) {
                break;
            }
        }
        Ok(())
    }

    /// False where the connection is over.
    fn lie(
        &self,
        mut answers: Vec<Value>,
        request: &Value,
        output: &mut impl Write,
        chance: &mut Chance,
    ) -> std::io::Result<bool> {
        let at = chance.below(answers.len());
        match chance.below(14) {
            0..=5 => answers[at] = mutate::structure(answers[at].clone(), chance),
            6 => {
                let kinds: Vec<&String> = self.talk.answers.keys().collect();
                answers = self.talk.answers[*chance.pick(&kinds)].clone();
                if let Some(id) = request["Call"].get("id") {
                    answers.iter_mut().for_each(|answer| address(answer, id));
                }
            }
            7 => {
                let event = event(chance);
                let event = json!({ "Event": { "id": request["Call"]["id"], "event": event } });
                answers.splice(0..0, vec![event; *chance.pick(&[1, 1, 3, 1_000])]);
            }
            8 => {
                let error = json!({ "kind": chance.pick(&["NotFound", "Lost", "Corrupt", "Oom", "Interrupted", "NoSuchKind", "Timeout"]),
                    "message": chance.pick(mutate::TEXTS), "hint": chance.pick(mutate::TEXTS) });
                answers = vec![json!({ "Outcome": { "id": request["Call"]["id"], "outcome": { "Err": error } } })];
            }
            9 => {
                let whole = frame(&answers[at]);
                let end = whole.len();
                output.write_all(&mutate::bytes(whole, 0..end, chance))?;
            }
            10 => {
                let claims = [0, 1, 1 << 31, 4 << 30, (4u64 << 30) + 1, 1 << 62, u64::MAX];
                output.write_all(&chance.pick(&claims).to_le_bytes())?;
                output.write_all(&frame(&answers[at])[8..])?;
                if chance.one_in(2) {
                    return Ok(false);
                }
            }
            11 => {
                let whole = frame(&answers[at]);
                output.write_all(&whole[..chance.below(whole.len())])?;
                return Ok(false);
            }
            12 => chance.shuffle(&mut answers),
            _ => {
                // It stands still.
                std::thread::sleep(Duration::from_secs(*chance.pick(&[1, 2, 60])));
                return Ok(false);
            }
        }
        say(&answers, output)
    }
}

/// An event that nothing has led to.
fn event(chance: &mut Chance) -> Value {
    let layer = mutate::weird_number(chance);
    let text = chance.pick(&[
        "../escaped",
        ".git/config",
        ".env",
        "s.rhai",
        "results/x/final_analysis_results.json",
        "\u{1b}]0;x\u{7}\u{1b}[2J",
        "-rf",
    ]);
    match chance.below(6) {
        0 | 1 => json!({ "Checkpoint": { "path": text, "layer": layer } }),
        2 => json!({ "Resumed": { "path": text, "layer": layer } }),
        3 => json!({ "Warning": text }),
        4 => json!({ "Begin": { "what": text, "total": layer } }),
        _ => {
            json!({ "Step": { "done": layer, "bytes": mutate::weird_number(chance), "tokens": mutate::weird_number(chance) } })
        }
    }
}

/// Gives an answer the id of the call that it is for.
fn address(answer: &mut Value, id: &Value) {
    for kind in ["Event", "Outcome"] {
        if answer.get(kind).is_some() {
            answer[kind]["id"] = id.clone();
        }
    }
}

fn say(answers: &[Value], output: &mut impl Write) -> std::io::Result<bool> {
    answers.iter().try_for_each(|answer| send(output, answer)).map(|()| true)
}

pub fn hostile_client(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    write(folder.join("t.txt"), TEXT.repeat(20));
    let mut requests = workshop.talk.requests.clone();
    requests.extend([
        json!({ "Cancel": { "id": "x" } }),
        json!({ "Forget": { "id": "x" } }),
        json!({ "HubToken": { "token": "x" } }),
    ]);
    requests.extend(vec![json!({ "Renew": { "seconds": 900.0 } }); 3]);
    let sessions: Vec<Vec<Vec<u8>>> = (0..8).map(|_| session(&requests, chance)).collect();
    let greets: Vec<bool> = sessions.iter().map(|_| !chance.one_in(15)).collect();
    let socket = folder.join("w/worker.sock");
    let meanwhile = move || {
        let deadline = Instant::now() + ANSWER;
        while UnixStream::connect(&socket).is_err() {
            if Instant::now() > deadline {
                return vec!["the worker does not listen".to_string()];
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for (frames, greets) in sessions.iter().zip(greets) {
            // What a worker does not like it may close.
            let _ = attack(&socket, frames, greets);
        }
        match honest(&socket) {
            // It has ended, as a client may ask it to.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    || error.kind() == std::io::ErrorKind::ConnectionRefused =>
            {
                Vec::new()
            }
            Err(error) => vec![format!("the worker does not answer an honest client: {}", error.kind())],
            Ok(()) => Vec::new(),
        }
    };
    let start =
        Start::of(&["worker", "serve", "--folder", "w", "--lease", "900", "--stall", "3600", "--lifetime", "43200"]);
    Start { meanwhile: Some(Box::new(meanwhile)), signals: vec![(0.0, libc::SIGTERM)], leaves_processes: true, ..start }
}

/// Frames of one connection.
fn session(requests: &[Value], chance: &mut Chance) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..1 + chance.below(5) {
        let request = chance.pick(requests).clone();
        // It would end the worker, and with it what is to come.
        if request == json!("End") && !chance.one_in(20) {
            continue;
        }
        let request = if chance.one_in(3) { request } else { mutate::structure(request, chance) };
        let whole = frame(&request);
        let end = whole.len();
        frames.push(match chance.below(12) {
            0 | 1 => mutate::bytes(whole, 0..end, chance),
            2 => {
                let claims = [0, 1, 1 << 31, 4 << 30, (4u64 << 30) + 1, u64::MAX];
                [&chance.pick(&claims).to_le_bytes()[..], &whole[8..]].concat()
            }
            3 => whole[..chance.below(end)].to_vec(),
            _ => whole,
        });
    }
    frames
}

fn connected(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Says what the worker says: versions are not what this is about.
fn greet(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut greeting = Vec::new();
    while greeting.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        greeting.push(byte[0]);
    }
    stream.write_all(&greeting)
}

fn attack(socket: &Path, frames: &[Vec<u8>], greets: bool) -> std::io::Result<()> {
    let mut stream = connected(socket)?;
    if greets {
        greet(&mut stream)?;
    }
    frames.iter().try_for_each(|frame| stream.write_all(frame))?;
    stream.set_read_timeout(Some(Duration::from_millis(30)))?;
    let mut buffer = vec![0; 1 << 16];
    stream.read(&mut buffer).map(drop)
}

/// A client that only asks how the worker is.
fn honest(socket: &Path) -> std::io::Result<()> {
    let mut stream = connected(socket)?;
    greet(&mut stream)?;
    send(&mut stream, &json!("Status"))?;
    let mut length = [0; 8];
    stream.read_exact(&mut length)
}
