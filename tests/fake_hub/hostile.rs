//! A hub that means ill, or is out of its mind: what it answers in place of what it should, about the requests whose path ends
//! in some way. Tests and fuzzers put these into `Mood::hostile`.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::http::{Reply, Request, write};

/// What is done to answers about a path that ends so; every path ends in "".
#[derive(Clone, Debug)]
pub enum Hostile {
    /// A header has this value, or is left out.
    Header(&'static str, &'static str, Option<String>),
    /// The body is this one, with a length that fits it; headers stay.
    Body(&'static str, Vec<u8>),
    /// This status, these headers and this body, whatever is asked for.
    Answer(&'static str, &'static str, Headers, Vec<u8>),
    /// A list with one entry, and a next page: always the same one, or a new one each time.
    Pages(&'static str, Next),
    /// A head, and a body without an end, as fast as it is taken.
    EndlessBody(&'static str),
    /// A head without an end.
    EndlessHead(&'static str),
    /// A byte of a body that never ends, again and again after so long a time.
    Drip(&'static str, Duration),
    /// A redirect to itself.
    RedirectLoop(&'static str),
}

pub type Headers = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Same,
    Other,
}

impl Hostile {
    fn end(&self) -> &'static str {
        match self {
            Self::Header(end, ..) | Self::Body(end, _) | Self::Answer(end, ..) | Self::Pages(end, _) => end,
            Self::EndlessBody(end) | Self::EndlessHead(end) | Self::Drip(end, _) | Self::RedirectLoop(end) => end,
        }
    }

    pub fn is_about(&self, request: &Request) -> bool {
        request.path.split('?').next().unwrap_or_default().ends_with(self.end())
    }

    /// Answers in place of the hub; None where the hub is to answer, otherwise whether the connection stays open.
    pub fn instead(&self, request: &Request, stream: &mut TcpStream) -> Option<bool> {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        match self {
            Self::EndlessBody(_) if request.method == "GET" => {
                let _ = stream.write_all(head).and_then(|()| stream.write_all(b"\r\n["));
                while stream.write_all(&b"[1],".repeat(1 << 14)).is_ok() {}
                Some(false)
            }
            Self::EndlessHead(_) => {
                let _ = stream.write_all(head);
                while stream.write_all(b"X-More: and more\r\n").is_ok() {}
                Some(false)
            }
            Self::Drip(_, pause) if request.method == "GET" => {
                let _ = stream.write_all(head).and_then(|()| stream.write_all(b"\r\n["));
                while stream.write_all(b" ").is_ok() {
                    std::thread::sleep(*pause);
                }
                Some(false)
            }
            Self::RedirectLoop(_) => {
                Some(write(stream, request, &Reply::new("302 Found", "").with("Location", request.path.clone())))
            }
            Self::Answer(_, status, headers, body) => {
                let reply = Reply::new(status, body.clone());
                let reply = headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value));
                Some(write(stream, request, &reply))
            }
            Self::Pages(_, next) => {
                let path = request.path.split('?').next().unwrap_or_default();
                let number = request.path.rsplit("page=").next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
                let number = if *next == Next::Same { 1 } else { number + 1 };
                let reply = Reply::new("200 OK", r#"[{"type": "file", "path": "data/x", "size": 1}]"#)
                    .with("Link", format!("<{path}?page={number}>; rel=\"next\""));
                Some(write(stream, request, &reply))
            }
            _ => None,
        }
    }

    /// The hub's answer as it is sent.
    pub fn change(&self, request: &Request, mut reply: Reply) -> Reply {
        match self {
            Self::Header(_, name, value) => {
                reply.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                value.iter().fold(reply, |reply, value| reply.with(name, value))
            }
            Self::Body(_, body) if request.method == "GET" => {
                (reply.length, reply.body) = (body.len() as u64, body.clone());
                reply
            }
            _ => reply,
        }
    }
}
