//! As much of HTTP/1.1 as the service needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

pub struct Request {
    pub method: String,
    pub path: String,
    query: Vec<(String, String)>,
    /// The bearer token.
    pub key: Option<String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// So many bytes of the body are sent before the connection breaks; 0 breaks it before the status.
    pub cut_to: Option<usize>,
    /// The stream stays open after the body.
    pub open: bool,
}

impl Answer {
    fn new(status: u16, kind: &str, body: Vec<u8>) -> Self {
        let headers = vec![("Content-Type", kind.to_string())];
        Self { status, headers, body, cut_to: None, open: false }
    }

    pub fn json(status: u16, body: Value) -> Self {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Self::new(status, "application/json", body)
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/html", body.as_bytes().to_vec())
    }

    pub fn problem(status: u16, detail: &str) -> Self {
        let body = json!({ "title": title(status), "status": status, "detail": detail });
        Self::new(status, "application/problem+json", body.to_string().into_bytes())
    }

    /// A body that does not keep to the contract.
    pub fn refused(error: &str) -> Self {
        let body =
            json!({ "title": title(422), "status": 422, "detail": "Request validation failed.", "errors": [error] });
        Self::new(422, "application/problem+json", body.to_string().into_bytes())
    }

    /// Lines as server-sent events; the stream does not end.
    pub fn events(lines: Vec<String>) -> Self {
        let mut body = String::from(": keepalive\n\n");
        for (i, line) in lines.iter().enumerate() {
            let time = "2026-11-01T12:00:00Z";
            let data = json!({ "ts": time, "source": "container", "line": line });
            body += &format!("id: {time}/{i:012}\ndata: {data}\n\n");
        }
        Self { open: true, ..Self::new(200, "text/event-stream", body.into_bytes()) }
    }
}

fn title(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}

pub fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        Some(line.trim_end().to_string())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_string(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (mut key, mut length, mut agent) = (None, 0, String::new());
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        match name.to_lowercase().as_str() {
            "authorization" => key = value.strip_prefix("Bearer ").map(str::to_string),
            "content-length" => length = value.parse().ok()?,
            "user-agent" => agent = value.to_string(),
            _ => (),
        }
    }
    assert!(agent.starts_with("outlier/") || agent.is_empty() || agent.starts_with("curl"), "agent {agent}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_string(), value.replace("%20", " ")));
    Some(Request { method, path: path.to_string(), query: query.split('&').filter_map(pair).collect(), key, body })
}

pub fn write(stream: &mut TcpStream, answer: Answer) {
    if answer.cut_to == Some(0) {
        return;
    }
    let mut head = format!("HTTP/1.1 {} {}\r\nConnection: close\r\n", answer.status, title(answer.status));
    head += "RateLimit: \"minute\";r=59;t=12, \"hour\";r=2800;t=1812\r\nRateLimit-Policy: \"minute\";q=60;w=60\r\n";
    if !answer.open {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let sent = answer.cut_to.unwrap_or(answer.body.len());
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&answer.body[..sent]));
    if answer.open {
        // Until the reader has had enough.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
        let _ = stream.read(&mut [0]);
    }
}
