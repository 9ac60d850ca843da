//! A connection to a worker with bounded waits: reads and writes check several times per second
//! whether to give up, independently of the other side.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::failure::Failure;
use super::wire::{self, Answer, Message};
use crate::error::{Error, Result};

/// Interval of these checks.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// A request that the other side does not receive within this time is given up.
const STUCK: Duration = Duration::from_secs(45);
/// The largest short answer in bytes: all but outcomes and events of calls.
const SHORT: usize = 1 << 20;
/// Bytes of a frame's length, little-endian, at its start.
const HEADER: usize = 8;
const PIECE: usize = 1 << 16;

/// The time limit of a wait, and a condition that ends it earlier.
pub(super) struct Wait<'a> {
    begin: Instant,
    limit: Duration,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Wait<'a> {
    pub(super) fn at_most(limit: Duration, stop: &'a dyn Fn() -> bool) -> Self {
        Self { begin: Instant::now(), limit, stop }
    }

    /// # Errors
    /// If it is time to give up.
    pub(super) fn goes_on(&self) -> Result<()> {
        if (self.stop)() {
            return Err(Error::interrupted());
        }
        match self.begin.elapsed() > self.limit {
            true => Err(late(self.limit)),
            false => Ok(()),
        }
    }
}

fn late(limit: Duration) -> Error {
    Error::of(Failure::Silent(limit))
}

fn lost(doing: &'static str, source: std::io::Error) -> Error {
    Error::of(Failure::Connection { doing, source })
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

pub(super) struct Line {
    stream: UnixStream,
    /// The received part of the next frame, with its length.
    frame: Vec<u8>,
    piece: Vec<u8>,
    /// Time of the last received byte.
    heard: Instant,
}

impl Line {
    /// A connection on which both sides have greeted.
    pub(super) fn greeted(stream: UnixStream, wait: &Wait) -> Result<Self> {
        let connecting = |e: std::io::Error| Error::io("connecting to the worker", &e);
        stream.set_read_timeout(Some(TICK)).map_err(connecting)?;
        stream.set_write_timeout(Some(TICK)).map_err(connecting)?;
        let greeted = wire::greet(&mut Waiting { stream: &stream, wait });
        greeted.map_err(|error| wait.goes_on().err().unwrap_or(error))?;
        Ok(Self { stream, frame: Vec::new(), piece: vec![0; PIECE], heard: Instant::now() })
    }

    /// Time since the last received byte.
    pub(super) fn silent(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Sends a request. Gives up if the other side receives nothing for `STUCK`, or at once when
    /// `stop` returns true.
    pub(super) fn send(&mut self, request: &Message, stop: &dyn Fn() -> bool) -> Result<()> {
        self.send_within(request, STUCK, stop)
    }

    pub(super) fn send_within(
        &mut self,
        request: &impl Serialize,
        stuck: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let frame = wire::frame(request)?;
        let mut rest = &frame[..];
        let mut moved = Instant::now();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(Error::of(Failure::Closed { doing: Some("sending") })),
                Ok(count) => (rest, moved) = (&rest[count..], Instant::now()),
                Err(e) if is_pause(&e) => (),
                Err(e) => return Err(lost("sending", e)),
            }
            if !rest.is_empty() && stop() {
                return Err(Error::interrupted());
            }
            if moved.elapsed() > stuck {
                return Err(late(stuck));
            }
        }
        Ok(())
    }

    /// The next answer of at most `most` bytes; None if it has not arrived completely within about
    /// `TICK`.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<Answer>> {
        let begin = Instant::now();
        loop {
            let missing = self.missing(most)?;
            if missing == 0 {
                let answer = rmp_serde::from_slice(&self.frame[HEADER..]);
                self.frame = Vec::new();
                return answer.map(Some).map_err(|e| Error::of(Failure::AnswerUnreadable(e)));
            }
            let room = missing.min(PIECE);
            match self.stream.read(&mut self.piece[..room]) {
                Ok(0) => return Err(Error::of(Failure::Closed { doing: None })),
                Ok(count) => {
                    self.frame.extend_from_slice(&self.piece[..count]);
                    self.heard = Instant::now();
                }
                Err(e) if is_pause(&e) => (),
                Err(e) => return Err(lost("receiving", e)),
            }
            if begin.elapsed() > TICK {
                return Ok(None);
            }
        }
    }

    /// Number of missing bytes of the frame.
    fn missing(&self, most: usize) -> Result<usize> {
        let Some(length) = self.frame.first_chunk::<HEADER>().copied().map(u64::from_le_bytes) else {
            return Ok(HEADER - self.frame.len());
        };
        if length > most as u64 {
            return Err(Error::of(Failure::AnswerTooLong { bytes: length, most }));
        }
        Ok(HEADER + length as usize - self.frame.len())
    }

    /// Sends one request that is answered at once.
    pub(super) fn ask(&mut self, request: &Message, wait: &Wait) -> Result<Answer> {
        self.send_within(request, wait.limit, wait.stop)?;
        loop {
            if let Some(answer) = self.next(SHORT)? {
                return Ok(answer);
            }
            wait.goes_on()?;
        }
    }

    /// The same for a request that is only acknowledged.
    pub(super) fn tell(&mut self, request: &Message, wait: &Wait) -> Result<()> {
        match self.ask(request, wait)? {
            Answer::Done => Ok(()),
            other => Err(Error::of(Failure::OtherAnswer { asked: "an acknowledgement", came: other.kind() })),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// A stream that reads and writes as if it were blocking, until the wait is over.
struct Waiting<'a> {
    stream: &'a UnixStream,
    wait: &'a Wait<'a>,
}

impl Waiting<'_> {
    fn until<T>(&self, mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
        loop {
            match attempt() {
                Err(e) if is_pause(&e) => self.wait.goes_on().map_err(std::io::Error::other)?,
                other => return other,
            }
        }
    }
}

impl Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.until(|| (&mut &*self.stream).read(buffer))
    }
}

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.until(|| (&mut &*self.stream).write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
