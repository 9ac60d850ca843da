//! The frames between a client and a worker on the wire: a line of greeting, then lengths and
//! MessagePack. The content of a frame is a JSON value here, so that its structure can be damaged.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::mutate::{self, MARK};

/// What was said in honest work.
#[derive(Default)]
pub struct Talk {
    pub requests: Vec<Value>,
    /// What a worker answered to each kind of request, and of a call to each kind of operation: in order, the outcome last.
    pub answers: BTreeMap<String, Vec<Value>>,
}

/// `Call Load` for a call that loads, `Renew` for a request to renew.
pub fn kind(request: &Value) -> String {
    let name = |value: &Value| match value {
        Value::String(name) => name.clone(),
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    match request.get("Call") {
        Some(call) => format!("Call {}", name(&call["op"])),
        None => name(request),
    }
}

impl Talk {
    /// From the two files of each connection, `up.N` and `down.N`.
    pub fn heard(folder: &Path) -> Self {
        let mut talk = Self::default();
        let mut names = crate::names(folder);
        names.sort();
        for name in names.iter().filter(|name| name.starts_with("up.")) {
            let requests = frames(&std::fs::read(folder.join(name)).unwrap_or_default());
            let answers = frames(&std::fs::read(folder.join(name.replace("up.", "down."))).unwrap_or_default());
            for request in &requests {
                let key = kind(request);
                let of_call = |answer: &&Value| match request["Call"]["id"].as_str() {
                    Some(id) => ["Event", "Outcome"].iter().any(|kind| answer[kind]["id"] == id),
                    None if key == "Status" => answer.get("Status").is_some(),
                    None => **answer == json!("Done"),
                };
                let told: Vec<Value> = answers.iter().filter(of_call).cloned().collect();
                if !told.is_empty() {
                    talk.answers.insert(key, told);
                }
            }
            talk.requests.extend(requests);
        }
        talk
    }

    pub fn to_json(&self) -> Value {
        json!(self.answers)
    }

    pub fn from_json(text: &[u8]) -> Self {
        Self { requests: Vec::new(), answers: serde_json::from_slice(text).unwrap_or_default() }
    }
}

/// The whole frames behind a greeting.
fn frames(bytes: &[u8]) -> Vec<Value> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
    let mut rest = &bytes[end + 1..];
    std::iter::from_fn(|| receive(&mut rest)).collect()
}

/// The next frame, or nothing at the end of the stream.
pub fn receive(stream: &mut impl Read) -> Option<Value> {
    let mut length = [0; 8];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(u64::from_le_bytes(length)).ok().filter(|length| *length < 1 << 30)?];
    stream.read_exact(&mut frame).ok()?;
    rmp_serde::from_slice(&frame).ok()
}

/// The frame of a value.
pub fn frame(value: &Value) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    encode(value, &mut bytes);
    let length = bytes.len() as u64 - 8;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

pub fn send(stream: &mut impl Write, value: &Value) -> std::io::Result<()> {
    stream.write_all(&frame(value)).and_then(|()| stream.flush())
}

/// MessagePack, with what stands behind marks as what it says.
fn encode(value: &Value, bytes: &mut Vec<u8>) {
    let long = |code: u8, count: usize, bytes: &mut Vec<u8>| {
        bytes.push(code);
        bytes.extend_from_slice(&(count as u32).to_be_bytes());
    };
    let float = |value: f64, bytes: &mut Vec<u8>| {
        bytes.push(0xcb);
        bytes.extend_from_slice(&value.to_be_bytes());
    };
    match value {
        Value::Null => bytes.push(0xc0),
        Value::Bool(value) => bytes.push(0xc2 + *value as u8),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => {
                bytes.push(0xcf);
                bytes.extend_from_slice(&whole.to_be_bytes());
            }
            (_, Some(whole)) => {
                bytes.push(0xd3);
                bytes.extend_from_slice(&whole.to_be_bytes());
            }
            _ => float(number.as_f64().unwrap_or_default(), bytes),
        },
        Value::String(text) => match text.strip_prefix(MARK).map(|marked| (marked, mutate::deep(marked))) {
            Some((_, Some((open, depth)))) => {
                let level: &[u8] = if open == '[' { &[0x91] } else { &[0x81, 0xa1, b'a'] };
                bytes.extend(level.repeat(depth));
                bytes.push(0xc0);
            }
            Some(("1e999", _)) => float(f64::INFINITY, bytes),
            Some(("-1e999", _)) => float(f64::NEG_INFINITY, bytes),
            Some(("NaN", _)) => float(f64::NAN, bytes),
            // An array that claims more than there is.
            Some(("[", _)) => long(0xdd, u32::MAX as usize, bytes),
            Some(("{", _)) => long(0xdf, u32::MAX as usize, bytes),
            Some(("\"", _)) => long(0xdb, u32::MAX as usize, bytes),
            _ => {
                long(0xdb, text.len(), bytes);
                bytes.extend_from_slice(text.as_bytes());
            }
        },
        Value::Array(list) => {
            long(0xdd, list.len(), bytes);
            list.iter().for_each(|value| encode(value, bytes));
        }
        Value::Object(map) => {
            long(0xdf, map.len(), bytes);
            for (key, value) in map {
                encode(&json!(key), bytes);
                encode(value, bytes);
            }
        }
    }
}
