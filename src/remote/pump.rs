//! Moves bytes between an SSH channel and this side. Sessions are non-blocking here: whoever can go on does.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use ssh2::{BlockDirections, Channel, ExtendedData, Session};

use super::Output;

const PIECE: usize = 1 << 17;
/// How long nothing may happen before everything is looked at again, milliseconds.
const LOOK: i32 = 1000;

/// The data, or nothing where there is none yet.
fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

/// As `ready`, for calls that give an SSH error; -37 is LIBSSH2_ERROR_EAGAIN.
fn done(result: Result<(), ssh2::Error>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.code() == ssh2::ErrorCode::Session(-37) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Waits until the session's socket, or one of ours, has something to do.
fn wait(session: &Session, other: Option<(RawFd, i16)>) {
    let events = match session.block_directions() {
        BlockDirections::Outbound => libc::POLLOUT,
        BlockDirections::Both => libc::POLLIN | libc::POLLOUT,
        _ => libc::POLLIN,
    };
    let mut fds = [libc::pollfd { fd: session.as_raw_fd(), events, revents: 0 }; 2];
    if let Some((fd, events)) = other {
        fds[1] = libc::pollfd { fd, events, revents: 0 };
    }
    // SAFETY: the array lives through the call and has as many entries as are announced.
    unsafe { libc::poll(fds.as_mut_ptr(), if other.is_some() { 2 } else { 1 }, LOOK) };
}

/// What waits to be written.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    begin: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.begin == self.bytes.len()
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.begin = 0;
    }

    /// True when something went on its way.
    fn write(&mut self, to: &mut impl Write) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let count = ready(to.write(&self.bytes[self.begin..]))?.unwrap_or(0);
        self.begin += count;
        Ok(count > 0)
    }
}

/// Feeds and hears a command until it ends, or until `output` is false; gives its exit code.
pub fn exec(
    session: &Session,
    mut channel: Channel,
    input: &mut dyn Read,
    output: &mut dyn FnMut(Output) -> bool,
) -> io::Result<i32> {
    let heard = |yes: bool| if yes { Ok(()) } else { Err(io::Error::other("nobody listens any more")) };
    let mut buffer = vec![0; PIECE];
    let mut pending = Pending::default();
    let (mut exhausted, mut eof_sent) = (false, false);
    loop {
        let mut moved = false;
        if pending.is_empty() && !exhausted {
            let count = input.read(&mut buffer)?;
            exhausted = count == 0;
            pending.fill(&buffer[..count]);
        }
        // A command that has ended does not take its input any more.
        if !channel.eof() {
            moved |= pending.write(&mut channel)?;
        }
        if exhausted && pending.is_empty() && !eof_sent {
            eof_sent = done(channel.send_eof())?;
        }
        if let Some(count @ 1..) = ready(channel.read(&mut buffer))? {
            heard(output(Output::Out(&buffer[..count])))?;
            moved = true;
        }
        if let Some(count @ 1..) = ready(channel.stderr().read(&mut buffer))? {
            heard(output(Output::Err(&buffer[..count])))?;
            moved = true;
        }
        if !moved && channel.eof() {
            break;
        }
        if !moved {
            wait(session, None);
        }
    }
    // Without these the exit status may not have arrived.
    while !done(channel.close())? {
        wait(session, None);
    }
    while !done(channel.wait_close())? {
        wait(session, None);
    }
    match channel.exit_signal().ok().and_then(|signal| signal.exit_signal) {
        Some(signal) => Ok(128 + number(&signal)),
        None => Ok(channel.exit_status()?),
    }
}

fn number(signal: &str) -> i32 {
    match signal {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "KILL" => libc::SIGKILL,
        "SEGV" => libc::SIGSEGV,
        "ABRT" => libc::SIGABRT,
        _ => libc::SIGTERM,
    }
}

/// Passes bytes between a command and a stream until either ends.
pub fn bridge(session: &Session, mut channel: Channel, mut stream: UnixStream) {
    // Nobody reads what the command says on stderr: it must not block the rest.
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
                // Our side has closed the stream: it wants nothing more.
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
