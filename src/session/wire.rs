//! The protocol between a client and `outlier worker`: one line of greeting each way, then
//! length-prefixed frames with one `Message` or one `Answer` in MessagePack.

use std::io::{Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::no_gpu::NoGpu;
use super::op::{Op, Reply};
use crate::error::{Error, Result};
use crate::progress::Event;
use crate::record::LoadArgs;

/// Incremented with every change of the enums below or of their contents.
pub(super) const PROTOCOL: u32 = 8;
/// The largest frame in bytes.
pub(super) const MAX_FRAME: usize = 4 << 30;
const MAX_GREETING: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// Starts `op` with this id. The same id on any connection joins that call: it gets the events
    /// after the first `seen`, and the outcome. A `fresh` request does not join a call that has
    /// failed or is being stopped.
    Call {
        id: String,
        op: Box<Op>,
        seen: usize,
        fresh: bool,
    },
    /// The call stops at its next safe point.
    Cancel {
        id: String,
    },
    /// The outcome has arrived and can be dropped.
    Forget {
        id: String,
    },
    /// Renews the lease for this many seconds from now on.
    Renew {
        seconds: f64,
    },
    /// Access token for the hub; kept in memory only.
    HubToken {
        token: String,
    },
    Status,
    /// The worker ends, and running calls are cancelled.
    End,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Event {
        id: String,
        event: Event,
    },
    Outcome {
        id: String,
        outcome: std::result::Result<Reply, Error>,
    },
    Status(Status),
    /// The answer to every other request.
    Done,
}

impl Answer {
    /// The name for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Answer::Event { .. } => "an event",
            Answer::Outcome { .. } => "an outcome",
            Answer::Status(_) => "a status",
            Answer::Done => "an acknowledgement",
        }
    }
}

/// The status of a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// Seconds since it started.
    pub age: f64,
    /// Seconds until the lease ends; None if there is none.
    pub lease: Option<f64>,
    /// Ids of running calls.
    pub at_work: Vec<String>,
    /// Seconds since a call last made progress.
    pub since_progress: f64,
    /// The models opened by `Load`, in that order.
    pub models: Vec<LoadArgs>,
    /// The reason why no GPU computes there; None if one does.
    pub no_gpu: Option<NoGpu>,
}

fn greeting() -> String {
    format!("outlier worker protocol {PROTOCOL} version {}\n", env!("CARGO_PKG_VERSION"))
}

/// Sends our greeting and reads the other side's.
pub(super) fn greet(stream: &mut (impl Read + Write)) -> Result<()> {
    let lost = |source| Error::of(Failure::Connection { doing: "greeting the worker", source });
    stream.write_all(greeting().as_bytes()).and_then(|()| stream.flush()).map_err(lost)?;
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(lost)?;
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
        if line.len() > MAX_GREETING {
            break;
        }
    }
    let line = String::from_utf8_lossy(&line);
    let other = line.strip_prefix("outlier worker protocol ").and_then(|rest| rest.split_once(" version "));
    match other {
        Some((protocol, _)) if protocol == PROTOCOL.to_string() => Ok(()),
        Some((protocol, version)) => {
            let (version, protocol) = (version.to_string(), protocol.to_string());
            Err(Error::of(Failure::OtherProtocol { version, protocol, ours: PROTOCOL }))
        }
        None => Err(Error::of(Failure::NoGreeting(line.into_owned()))),
    }
}

/// An encoded message: 8 bytes of length, then the message.
pub(super) fn frame(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut frame = vec![0; 8];
    rmp_serde::encode::write_named(&mut frame, message).map_err(|e| Error::of(Failure::FrameNotWritten(e)))?;
    let length = (frame.len() - 8) as u64;
    frame[..8].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Sends one frame in one write.
pub(super) fn send_frame(stream: &mut impl Write, frame: &[u8]) -> Result<()> {
    let lost = |source| Error::of(Failure::Connection { doing: "sending", source });
    stream.write_all(frame).and_then(|()| stream.flush()).map_err(lost)
}

/// The next frame of at most `most` bytes.
///
/// # Errors
/// `Lost` if the other side has gone.
pub(super) fn receive_up_to<T: DeserializeOwned>(stream: &mut impl Read, most: usize) -> Result<T> {
    let lost = |source| Error::of(Failure::Connection { doing: "receiving", source });
    let mut length = [0; 8];
    stream.read_exact(&mut length).map_err(lost)?;
    let length = u64::from_le_bytes(length) as usize;
    if length > most {
        return Err(Error::of(Failure::FrameTooLong(length as u64)));
    }
    // Memory grows with the received bytes, not with the announced length.
    let mut frame = Vec::new();
    stream.take(length as u64).read_to_end(&mut frame).map_err(lost)?;
    if frame.len() < length {
        return Err(Error::of(Failure::FrameCutOff));
    }
    rmp_serde::from_slice(&frame).map_err(|e| Error::of(Failure::FrameUnreadable(e)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn frames_arrive_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        send_frame(&mut bytes, &frame(&Message::Renew { seconds: 1.5 }).unwrap()).unwrap();
        let whole: Message = receive_up_to(&mut bytes.as_slice(), MAX_FRAME).unwrap();
        assert!(matches!(whole, Message::Renew { seconds: 1.5 }));
        for cut in 0..bytes.len() {
            let error = receive_up_to::<Message>(&mut &bytes[..cut], MAX_FRAME).unwrap_err();
            assert_eq!(error.kind, Kind::Lost, "cut at {cut}");
        }
        let claim = [0xff; 20];
        assert_eq!(receive_up_to::<Message>(&mut claim.as_slice(), MAX_FRAME).unwrap_err().kind, Kind::Lost);
    }

    #[test]
    fn another_protocol_is_told_from_noise() {
        let other = |said: &str| {
            let (mut here, mut there) = UnixStream::pair().unwrap();
            there.write_all(said.as_bytes()).unwrap();
            drop(there.shutdown(std::net::Shutdown::Write));
            greet(&mut here).map_err(|e| e.kind)
        };
        assert_eq!(other(&greeting()), Ok(()));
        assert_eq!(other("outlier worker protocol 999 version 9.9.9\n"), Err(Kind::VersionMismatch));
        assert_eq!(other("Welcome to Ubuntu\n"), Err(Kind::Lost));
        assert_eq!(other(""), Err(Kind::Lost));
    }
}
