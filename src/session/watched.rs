//! A machine whose commands can be abandoned: each runs in a separate thread, and its caller checks
//! several times per second whether to give up. The output is bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::line::TICK;
use crate::error::{Error, Result};
use crate::remote::{Listener, Machine, Output};
use crate::threads;

/// The largest number of queued pieces of output.
const WAITING: usize = 16;
const PIECE: usize = 1 << 17;

/// Returns the reason to give up waiting for a command, if there is one.
pub(super) type GiveUp<'a> = dyn Fn() -> Option<Error> + Send + Sync + 'a;

pub(super) struct Watched<F> {
    inner: Arc<dyn Machine>,
    /// The most bytes of output of all commands together.
    most: u64,
    written: AtomicU64,
    /// How long a command may be silent; None for no limit.
    stall: Option<Duration>,
    give_up: F,
}

enum Heard {
    Piece(bool, Vec<u8>),
    Silence,
    Ended(Result<i32>),
}

impl<F: Fn() -> Option<Error> + Send + Sync> Watched<F> {
    pub(super) fn new(inner: Arc<dyn Machine>, most: u64, stall: Option<Duration>, give_up: F) -> Self {
        Self { inner, most, written: AtomicU64::new(0), stall, give_up }
    }

    /// Counts a piece.
    ///
    /// # Errors
    /// If there is too much output.
    fn admit(&self, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        match self.written.fetch_add(length, Ordering::Relaxed).saturating_add(length) > self.most {
            true => Err(Error::of(Failure::OutputTooLong { machine: self.name(), most: self.most })),
            false => Ok(()),
        }
    }
}

impl<F: Fn() -> Option<Error> + Send + Sync> Machine for Watched<F> {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        let starting = |e: std::io::Error| Error::io("starting a command", &e);
        let (ours, mut theirs) = UnixStream::pair().map_err(starting)?;
        ours.set_write_timeout(Some(TICK)).map_err(starting)?;
        let (sender, heard) = sync_channel(WAITING);
        let (inner, command) = (self.inner.clone(), command.to_string());
        let unheard = |e: std::io::Error| Error::no_thread("a command of a machine", &e);
        threads::start(move || {
            let code = inner.run(&command, &mut theirs, &mut |piece| {
                let (Output::Out(bytes) | Output::Err(bytes)) = piece;
                let piece = match bytes.is_empty() {
                    true => Heard::Silence,
                    false => Heard::Piece(matches!(piece, Output::Out(_)), bytes.to_vec()),
                };
                // The caller has given up, so the command is ended.
                sender.send(piece).map_err(|_| Error::interrupted())
            });
            let _ = sender.send(Heard::Ended(code));
        })
        .map_err(unheard)?;
        let (left, moved) = (AtomicBool::new(false), AtomicU64::new(0));
        let (begin, is_left) = (Instant::now(), || left.load(Ordering::Relaxed));
        let move_on = || moved.store(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let feeding = threads::start_in(scope, || feed(input, ours, &is_left, &move_on)).map_err(unheard)?;
            let mut listen = || -> Result<i32> {
                loop {
                    match heard.recv_timeout(TICK) {
                        Ok(Heard::Piece(out, bytes)) => {
                            move_on();
                            self.admit(&bytes)?;
                            output(if out { Output::Out(&bytes) } else { Output::Err(&bytes) })?;
                        }
                        Ok(Heard::Ended(code)) => return code,
                        Ok(Heard::Silence) | Err(RecvTimeoutError::Timeout) => (),
                        Err(RecvTimeoutError::Disconnected) => {
                            return Err(Error::of(Failure::Panicked("a command of a machine")));
                        }
                    }
                    if let Some(error) = (self.give_up)() {
                        return Err(error);
                    }
                    let still = begin.elapsed().saturating_sub(Duration::from_millis(moved.load(Ordering::Relaxed)));
                    if self.stall.is_some_and(|stall| still > stall) {
                        return Err(Error::of(Failure::StandsStill { machine: self.name(), time: still }));
                    }
                }
            };
            let outcome = listen();
            // A command may end without reading all of its input.
            left.store(true, Ordering::Relaxed);
            let fed = feeding.join().unwrap_or(Ok(()));
            match (outcome, fed) {
                (Ok(_), Err(source)) => Err(Error::of(Failure::InputLost { machine: self.name(), source })),
                (outcome, _) => outcome,
            }
        })
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        self.inner.open(command)
    }

    fn keeper(&self) -> Option<String> {
        self.inner.keeper()
    }

    fn is_here(&self) -> bool {
        self.inner.is_here()
    }

    fn ended(&self) -> Option<String> {
        self.inner.ended()
    }
}

/// Passes the input on, until nobody receives it or the command was abandoned.
///
/// # Errors
/// If the input cannot be read.
fn feed(
    input: &mut (dyn Read + Send),
    mut to: UnixStream,
    is_left: &(dyn Fn() -> bool + Sync),
    move_on: &(dyn Fn() + Sync),
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = match input.read(&mut piece) {
            Ok(0) => return to.shutdown(Shutdown::Write).or(Ok(())),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let mut rest = &piece[..count];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(count) => {
                    rest = &rest[count..];
                    move_on();
                }
                Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                    return Ok(());
                }
                Err(_) => (),
            }
            if is_left() {
                return Ok(());
            }
        }
    }
}
