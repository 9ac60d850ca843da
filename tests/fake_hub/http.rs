//! As much of HTTP/1.1 as the fakes need: requests without bodies, answers with one, connections that stay open.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: HashMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `Range: bytes=5-9` as (5, 9).
    pub fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

#[derive(Clone)]
pub struct Reply {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// What Content-Length says; the body may end sooner.
    pub length: u64,
}

impl Reply {
    pub fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), length: body.len() as u64, body }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As the hub tells errors.
    pub fn error(status: &'static str, code: &str, message: &str) -> Self {
        let reply = Self::new(status, "").with("X-Error-Message", message);
        if code.is_empty() { reply } else { reply.with("X-Error-Code", code) }
    }
}

/// Starts a server on a port of its own; `answer` gets each request and says whether the connection stays open.
pub fn serve(answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || connection(stream, &*answer));
        }
    });
    address
}

fn connection(mut stream: TcpStream, answer: &(dyn Fn(&Request, &mut TcpStream) -> bool + Send + Sync)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let mut words = first.split(' ').map(str::to_string);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { break };
        let headers: HashMap<String, String> = lines
            .by_ref()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string())))
            .collect();
        if !answer(&Request { method, path, headers }, &mut stream) {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Writes the head of an answer.
pub fn write_head(stream: &mut TcpStream, reply: &Reply) -> bool {
    let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n", reply.status, reply.length);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).is_ok()
}

/// Writes an answer whole; false when the body is shorter than announced, and so the connection must end.
pub fn write(stream: &mut TcpStream, request: &Request, reply: &Reply) -> bool {
    let sent = write_head(stream, reply) && (request.method == "HEAD" || stream.write_all(&reply.body).is_ok());
    sent && (request.method == "HEAD" || reply.length == reply.body.len() as u64)
}

/// Percent-decoded.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || (rest.next().unwrap_or(b'0') as char).to_digit(16).unwrap_or(0) as u8;
        bytes.push(if byte == b'%' { digit() * 16 + digit() } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}
