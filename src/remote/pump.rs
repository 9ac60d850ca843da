//! Copies bytes between an SSH channel and this side. Sessions are non-blocking here.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use ssh2::{BlockDirections, Channel, ExtendedData, Session};

pub(super) const PIECE: usize = 1 << 17;
/// The longest wait in milliseconds before everything is checked again.
const LOOK: i32 = 1000;

/// The data, or None if there is none yet.
pub(super) fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

/// As `ready`, for calls with an SSH error; -37 is LIBSSH2_ERROR_EAGAIN.
pub(super) fn done(result: Result<(), ssh2::Error>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.code() == ssh2::ErrorCode::Session(-37) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Waits until the session's socket or ours is ready, at most for `LOOK`.
pub(super) fn wait(session: &Session, other: Option<(RawFd, i16)>) {
    let events = match session.block_directions() {
        BlockDirections::Outbound => libc::POLLOUT,
        BlockDirections::Both => libc::POLLIN | libc::POLLOUT,
        _ => libc::POLLIN,
    };
    let mut fds = [libc::pollfd { fd: session.as_raw_fd(), events, revents: 0 }; 2];
    if let Some((fd, events)) = other {
        fds[1] = libc::pollfd { fd, events, revents: 0 };
    }
    // SAFETY: the array outlives the call and has this number of entries.
    unsafe { libc::poll(fds.as_mut_ptr(), if other.is_some() { 2 } else { 1 }, LOOK) };
}

/// Data to be written.
#[derive(Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    begin: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.begin == self.bytes.len()
    }

    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.begin = 0;
    }

    /// True if some data was written.
    pub(super) fn write(&mut self, to: &mut impl Write) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let count = ready(to.write(&self.bytes[self.begin..]))?.unwrap_or(0);
        self.begin += count;
        Ok(count > 0)
    }
}

/// Copies bytes between a command and a stream until either ends.
pub(super) fn bridge(session: &Session, mut channel: Channel, mut stream: UnixStream) {
    // The command's stderr is discarded, so that it cannot block.
    let _ = channel.handle_extended_data(ExtendedData::Ignore);
    let _ = pass(session, &mut channel, &mut stream);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    session.set_blocking(true);
    session.set_timeout(2000);
    let _ = channel.close();
}

fn pass(session: &Session, channel: &mut Channel, stream: &mut UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let (mut to_channel, mut to_stream) = (Pending::default(), Pending::default());
    loop {
        let mut moved = false;
        if to_channel.is_empty() {
            match ready(stream.read(&mut buffer))? {
                // Our side has closed the stream.
                Some(0) => return Ok(()),
                Some(count) => to_channel.fill(&buffer[..count]),
                None => (),
            }
        }
        moved |= to_channel.write(channel)?;
        if to_stream.is_empty()
            && let Some(count @ 1..) = ready(channel.read(&mut buffer))?
        {
            to_stream.fill(&buffer[..count]);
            moved = true;
        }
        moved |= to_stream.write(stream)?;
        if !moved && to_stream.is_empty() && channel.eof() {
            return Ok(());
        }
        if !moved {
            let mut events = 0;
            if to_channel.is_empty() {
                events |= libc::POLLIN;
            }
            if !to_stream.is_empty() {
                events |= libc::POLLOUT;
            }
            wait(session, Some((stream.as_raw_fd(), events)));
        }
    }
}
