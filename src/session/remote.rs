//! A session on another machine: each call has a connection of its own to the worker there, and takes up a new one when
//! it breaks.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire::{self, Answer, Request, Status};
use super::{Op, Reply, Session};
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};
use crate::record::LoadArgs;
use crate::remote::Machine;
use crate::secret::Secret;

/// How often a waiting call looks whether it should stop.
const TICK: Duration = Duration::from_millis(200);
/// A worker that is there greets within this time, its start included.
const GREETING: Duration = Duration::from_secs(60);
/// A silent connection is asked for a sign of life after this time, and given up after twice as long again.
const SILENCE: Duration = Duration::from_secs(15);
/// A cancelled call answers within this time, or is left to the worker.
const CANCELLED: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The way to one worker.
#[derive(Clone)]
pub struct Link {
    pub machine: Arc<dyn Machine>,
    /// The command that starts the worker if need be and attaches to it.
    pub attach: String,
    pub hub_token: Option<Secret>,
}

impl Link {
    /// A connection that has been greeted.
    fn connect(&self) -> Result<UnixStream> {
        let mut stream = self.machine.open(&self.attach)?;
        let timeout = |stream: &UnixStream, limit| {
            stream.set_read_timeout(limit).map_err(|e| Error::io("connecting to the worker", &e))
        };
        timeout(&stream, Some(GREETING))?;
        wire::greet(&mut stream).map_err(|e| e.context(self.machine.name()))?;
        timeout(&stream, None)?;
        if let Some(token) = &self.hub_token {
            ask(&mut stream, &Request::HubToken { token: token.expose().to_string() })?;
        }
        Ok(stream)
    }
}

/// One request that is answered at once.
fn ask(stream: &mut UnixStream, request: &Request) -> Result<Answer> {
    wire::send(stream, request)?;
    wire::receive(stream)
}

/// What the worker says of itself.
pub fn status(link: &Link) -> Result<Status> {
    match ask(&mut link.connect()?, &Request::Status)? {
        Answer::Status(status) => Ok(status),
        other => Err(Error::new(Kind::Lost, format!("expected the status of a worker, got {other:?}"))),
    }
}

pub struct Remote {
    link: Link,
    /// How long a call tries to reach a machine that has gone silent.
    patience: Duration,
    _keeper: Option<Keeper>,
}

impl Remote {
    /// With `lease`, a thread of its own renews the lease of the worker as long as this value lives.
    pub fn new(link: Link, patience: Duration, lease: Option<Duration>) -> Self {
        let keeper = lease.map(|lease| Keeper::start(link.clone(), lease));
        Self { link, patience, _keeper: keeper }
    }

    /// What the worker says of itself.
    pub fn status(&self) -> Result<Status> {
        status(&self.link)
    }

    /// Ends the worker, which need not be there any more.
    pub fn end(&self) {
        if let Ok(mut stream) = self.link.connect() {
            let _ = ask(&mut stream, &Request::End);
        }
    }
}

impl Session for Remote {
    fn call(&self, op: Op, progress: &dyn Progress) -> Result<Reply> {
        // The same work has the same id, so that a client which takes a machine over finds what goes on there.
        let id = op.id();
        let mut seen = 0;
        let mut lost_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let before = seen;
            let error = match self.attempt(&id, &op, &mut seen, progress, lost_since.is_some()) {
                Ok(outcome) => return outcome,
                Err(error) if !matches!(error.kind, Kind::Lost | Kind::Timeout) => return Err(error),
                Err(error) => error,
            };
            if seen > before {
                (lost_since, pause) = (None, FIRST_PAUSE);
            }
            let name = self.link.machine.name();
            if let Some(why) = self.link.machine.ended() {
                return Err(Error::new(Kind::Lost, format!("{name}: {why}"))
                    .hint("run the script again: finished work is kept"));
            }
            let since = *lost_since.get_or_insert_with(|| {
                progress.event(Event::Warning(format!("{name}: {} — connecting again", error.message)));
                Instant::now()
            });
            if since.elapsed() > self.patience {
                let message = format!("{name}: not reached for {} s: {}", since.elapsed().as_secs(), error.message);
                let hint =
                    "is the machine still there (`outlier gpus --all`)? run the script again: finished work is kept";
                return Err(Error::new(Kind::Lost, message).hint(hint));
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if progress.interrupted() {
                    return Err(Error::interrupted());
                }
                std::thread::sleep(TICK.min(pause));
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn loaded(&self) -> Result<Vec<LoadArgs>> {
        self.status().map(|status| status.models)
    }
}

impl Remote {
    /// One connection's worth of a call: its outcome, or how the connection failed.
    fn attempt(
        &self,
        id: &str,
        op: &Op,
        seen: &mut usize,
        progress: &dyn Progress,
        again: bool,
    ) -> Result<Result<Reply>> {
        let mut stream = self.link.connect()?;
        if again {
            progress.event(Event::Warning(format!("{}: connected again", self.link.machine.name())));
        }
        let (id, op, seen_before) = (id.to_string(), Box::new(op.clone()), *seen);
        wire::send(&mut stream, &Request::Call { id: id.clone(), op, seen: seen_before, fresh: !again })?;
        let answers = answers(&stream)?;
        let mut last_word = Instant::now();
        let mut asked = false;
        let mut cancelled: Option<Instant> = None;
        loop {
            match answers.recv_timeout(TICK) {
                Ok(answer) => {
                    (last_word, asked) = (Instant::now(), false);
                    match answer? {
                        Answer::Event { event, .. } => {
                            *seen += 1;
                            progress.event(event);
                        }
                        Answer::Outcome { outcome, .. } => {
                            let _ = wire::send(&mut stream, &Request::Forget { id: id.clone() });
                            let _ = answers.recv_timeout(TICK);
                            let _ = stream.shutdown(std::net::Shutdown::Both);
                            return Ok(outcome);
                        }
                        Answer::Status(_) | Answer::Done => (),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if last_word.elapsed() > 3 * SILENCE {
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                        return Err(Error::new(Kind::Timeout, "no sign of life"));
                    }
                    if last_word.elapsed() > SILENCE && !asked {
                        asked = true;
                        wire::send(&mut stream, &Request::Status)?;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Kind::Lost, "the connection broke")),
            }
            if progress.interrupted() {
                match cancelled {
                    None => {
                        cancelled = Some(Instant::now());
                        wire::send(&mut stream, &Request::Cancel { id: id.clone() })?;
                    }
                    Some(since) if since.elapsed() > CANCELLED => return Ok(Err(Error::interrupted())),
                    Some(_) => (),
                }
            }
        }
    }
}

/// What arrives on a stream, read by a thread of its own until it breaks.
fn answers(stream: &UnixStream) -> Result<Receiver<Result<Answer>>> {
    let mut stream = stream.try_clone().map_err(|e| Error::io("connecting to the worker", &e))?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        loop {
            let answer = wire::receive(&mut stream);
            let broken = answer.is_err();
            if sender.send(answer).is_err() || broken {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Tells the worker, four times per lease, that somebody wants it.
struct Keeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(link: Link, lease: Duration) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (watched, flag) = (stop.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            let mut stream: Option<UnixStream> = None;
            let renew = Request::Renew { seconds: lease.as_secs_f64() };
            while !flag.load(Ordering::Relaxed) {
                // A connection that broke is made anew at the next turn.
                stream = stream.or_else(|| link.connect().ok()).filter(|mut stream| {
                    let _ = stream.set_read_timeout(Some(lease / 4));
                    wire::send(&mut stream, &renew).and_then(|()| wire::receive::<Answer>(&mut stream)).is_ok()
                });
                let (lock, changed) = &*watched;
                let stop = lock.lock().expect("no panic under this lock");
                if !*stop {
                    let pause = if stream.is_some() { lease / 4 } else { lease / 20 };
                    drop(changed.wait_timeout(stop, pause).expect("no panic under this lock"));
                }
            }
        });
        Self { stop, stopped, thread: Some(thread) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        *self.stop.0.lock().expect("no panic under this lock") = true;
        self.stop.1.notify_all();
        // Not joined: it may be waiting for a machine that does not answer.
        drop(self.thread.take());
    }
}
