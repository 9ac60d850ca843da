//! A session on another machine: each call has its own connection to the worker there, and
//! reconnects when it breaks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::answer::{Told, Verify, told};
use super::failure::Failure;
use super::line::{Line, TICK, Wait};
use super::op::{Reply, Sent};
use super::request::{DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Serve};
use super::wire::{Answer, MAX_FRAME, Message, Status};
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress, interrupt_requested};
use crate::record::{Activations, Estimate, LoadArgs, Miniature, ModelInfo, Tokens};
use crate::remote::Machine;
use crate::secret::Secret;
use crate::threads;

/// An available worker has greeted and answered within this time, including its start.
const GREETING: Duration = Duration::from_secs(90);
/// After this time a silent connection is asked for a sign of life. After twice as long again it is
/// given up.
const SILENCE: Duration = Duration::from_secs(15);
/// A cancelled call answers within this time, or is left to the worker.
const CANCELLED: Duration = Duration::from_secs(20);
/// Time that a worker has to confirm its end. The machine has other ways to end.
const ENDING: Duration = Duration::from_secs(20);
/// Time limit of the last message of a call, which need not arrive.
const PARTING: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The largest number of models that a worker may report.
const MAX_LOADED: usize = 1000;

fn never() -> bool {
    false
}

/// The connection parameters of one worker.
#[derive(Clone)]
pub struct Link {
    pub machine: Arc<dyn Machine>,
    /// The command that starts the worker if needed and attaches to it.
    pub attach: String,
    pub hub_token: Option<Secret>,
}

impl Link {
    /// A new connection, after the greeting.
    fn connect(&self, wait: &Wait) -> Result<Line> {
        let (sender, opened) = channel();
        let (machine, attach) = (self.machine.clone(), self.attach.clone());
        // A machine that does not answer must not block this thread: a separate thread connects,
        // and may be abandoned.
        threads::start(move || sender.send(machine.open(&attach)))
            .map_err(|e| Error::no_thread("a connection to a machine", &e))?;
        let stream = loop {
            match opened.recv_timeout(TICK) {
                Ok(stream) => break stream?,
                Err(RecvTimeoutError::Timeout) => wait.goes_on()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::of(Failure::NoConnection)),
            }
        };
        let mut line = Line::greeted(stream, wait).map_err(|e| e.context(self.machine.name()))?;
        if let Some(token) = &self.hub_token {
            line.tell(&Message::HubToken { token: token.expose().to_string() }, wait)?;
        }
        Ok(line)
    }
}

/// The worker's status.
///
/// # Errors
/// At once when `stop` returns true.
pub(super) fn status(link: &Link, stop: &dyn Fn() -> bool) -> Result<Status> {
    let wait = Wait::at_most(GREETING, stop);
    match link.connect(&wait)?.ask(&Message::Status, &wait)? {
        Answer::Status(status) => Ok(status),
        other => Err(Error::of(Failure::OtherAnswer { asked: "the status of a worker", came: other.kind() })),
    }
}

pub struct Remote {
    link: Link,
    /// How long a call tries to reach a silent machine.
    patience: Duration,
    /// The worker's descriptions of the models that were loaded through this session. They bound
    /// the sizes of replies.
    known: Mutex<Vec<(LoadArgs, ModelInfo)>>,
    _keeper: Option<Keeper>,
}

impl Remote {
    /// With `lease`, a thread renews the worker's lease as long as this value lives.
    ///
    /// # Errors
    /// `io` if the thread cannot be started.
    pub fn new(link: Link, patience: Duration, lease: Option<Duration>) -> Result<Self> {
        let keeper = lease.map(|lease| Keeper::start(link.clone(), lease)).transpose()?;
        Ok(Self { link, patience, known: Mutex::default(), _keeper: keeper })
    }

    /// The worker's status, even during an interruption.
    pub fn status(&self) -> Result<Status> {
        status(&self.link, &never)
    }

    /// Ends the worker, which may be gone already. False if nobody has confirmed it.
    pub fn end(&self) -> bool {
        let wait = Wait::at_most(ENDING, &never);
        let told = self.link.connect(&wait).and_then(|mut line| line.tell(&Message::End, &wait));
        told.is_ok()
    }

    /// The worker's description of a model, from its loading.
    pub(super) fn known(&self, model: &LoadArgs) -> Option<ModelInfo> {
        let known = self.known.lock().expect("no panic under this lock");
        known.iter().find(|(loaded, _)| loaded == model).map(|(_, info)| info.clone())
    }

    /// The models that are loaded there.
    pub(super) fn loaded(&self) -> Result<Vec<LoadArgs>> {
        let models = status(&self.link, &interrupt_requested)?.models;
        match models.len() <= MAX_LOADED {
            true => Ok(models),
            false => Err(Error::of(Failure::TooManyModels(models.len()))),
        }
    }
}

impl Serve<Load> for Remote {
    fn serve(&self, request: Load, progress: &dyn Progress) -> Result<Loaded> {
        let args = request.0.clone();
        let loaded = self.exchange(request, None, progress)?;
        let mut known = self.known.lock().expect("no panic under this lock");
        known.retain(|(model, _)| *model != args);
        known.push((args, loaded.info.clone()));
        Ok(loaded)
    }
}

impl Serve<LoadTokens> for Remote {
    fn serve(&self, request: LoadTokens, progress: &dyn Progress) -> Result<Tokens> {
        self.exchange(request, None, progress)
    }
}

impl Serve<Extract> for Remote {
    fn serve(&self, request: Extract, progress: &dyn Progress) -> Result<Activations> {
        let known = self.known(&request.model);
        self.exchange(request, known, progress)
    }
}

impl Serve<EstimateWork> for Remote {
    fn serve(&self, request: EstimateWork, progress: &dyn Progress) -> Result<Estimate> {
        self.exchange(request, None, progress)
    }
}

impl Serve<EncodeTexts> for Remote {
    fn serve(&self, request: EncodeTexts, progress: &dyn Progress) -> Result<Vec<Vec<u32>>> {
        self.exchange(request, None, progress)
    }
}

impl Serve<DecodeIds> for Remote {
    fn serve(&self, request: DecodeIds, progress: &dyn Progress) -> Result<Vec<String>> {
        self.exchange(request, None, progress)
    }
}

impl Serve<MakeMiniature> for Remote {
    fn serve(&self, request: MakeMiniature, progress: &dyn Progress) -> Result<Miniature> {
        self.exchange(request, None, progress)
    }
}

impl Remote {
    /// Carries out a request on one connection after another. `known` is the model of an
    /// extraction, as the worker has described it.
    fn exchange<R: Sent + Verify>(
        &self,
        request: R,
        known: Option<ModelInfo>,
        progress: &dyn Progress,
    ) -> Result<R::Reply> {
        // The same work has the same id, so that a client that takes a machine over finds its
        // running calls.
        let told = Told::new(request.checkpoint_file());
        let mut call = Call { id: request.op().id(), seen: 0, told, known, request };
        let mut lost_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (before, begin) = (call.seen, Instant::now());
            let error = match self.attempt(&mut call, progress, lost_since.is_some()) {
                Ok(outcome) => return outcome,
                Err(error) if !matches!(error.kind, Kind::Lost | Kind::Timeout) => return Err(error),
                Err(error) => error,
            };
            let mut since = begin;
            if call.seen > before {
                (lost_since, pause, since) = (None, FIRST_PAUSE, Instant::now());
            }
            let name = self.link.machine.name();
            if let Some(why) = self.link.machine.ended() {
                return Err(Error::of(Failure::Ended { machine: name, reason: why }));
            }
            let since = *lost_since.get_or_insert_with(|| {
                progress.event(Event::Warning(format!("{name}: {} — connecting again", error.message)));
                since
            });
            if since.elapsed() > self.patience {
                let (time, reason) = (since.elapsed(), error.message);
                return Err(Error::of(Failure::NotReached { machine: name, time, reason }));
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
}

/// A call, over one connection after another.
struct Call<R> {
    id: String,
    request: R,
    /// Number of received events.
    seen: usize,
    told: Told,
    known: Option<ModelInfo>,
}

impl Remote {
    /// Follows a call on one connection: its outcome, or the error of the connection.
    fn attempt<R: Sent + Verify>(
        &self,
        call: &mut Call<R>,
        progress: &dyn Progress,
        again: bool,
    ) -> Result<Result<R::Reply>> {
        let stop = || progress.interrupted();
        let mut line = self.link.connect(&Wait::at_most(GREETING.min(self.patience.max(SILENCE)), &stop))?;
        if again {
            progress.event(Event::Warning(format!("{}: connected again", self.link.machine.name())));
        }
        let (id, op) = (call.id.clone(), Box::new(call.request.op()));
        line.send(&Message::Call { id: id.clone(), op, seen: call.seen, fresh: !again }, &stop)?;
        let most = call.request.largest_reply(call.known.as_ref()).min(MAX_FRAME as u64) as usize;
        let mut asked = false;
        let mut cancelled: Option<Instant> = None;
        loop {
            match line.next(most)? {
                Some(answer) => {
                    asked = false;
                    match answer {
                        Answer::Event { id: of, event } if of == id => {
                            call.seen += 1;
                            call.told.admit(event)?.into_iter().for_each(|event| progress.event(event));
                        }
                        Answer::Outcome { id: of, outcome } if of == id => {
                            let _ = line.send_within(&Message::Forget { id }, PARTING, &never);
                            let _ = line.next(most);
                            return Ok(outcome.map_err(told).and_then(|reply| call.verified(reply)));
                        }
                        Answer::Event { .. } | Answer::Outcome { .. } => {
                            return Err(Error::of(Failure::OtherCall));
                        }
                        Answer::Status(_) | Answer::Done => (),
                    }
                }
                None if line.silent() > 3 * SILENCE => return Err(Error::of(Failure::NoSignOfLife)),
                None if line.silent() > SILENCE && !asked => {
                    asked = true;
                    line.send(&Message::Status, &stop)?;
                }
                None => (),
            }
            if progress.interrupted() {
                match cancelled {
                    None => {
                        cancelled = Some(Instant::now());
                        line.send_within(&Message::Cancel { id: id.clone() }, PARTING, &never)?;
                    }
                    Some(since) if since.elapsed() > CANCELLED => return Ok(Err(Error::interrupted())),
                    Some(_) => (),
                }
            }
        }
    }
}

impl<R: Sent + Verify> Call<R> {
    /// The reply of the request's type.
    ///
    /// # Errors
    /// `corrupt` if it does not answer the request.
    fn verified(&self, reply: Reply) -> Result<R::Reply> {
        let other = |other: Reply| format!("{} was asked for, {} came", R::ASKS_FOR, other.name());
        let verified = R::reply(reply).map_err(other).and_then(|reply| {
            self.request.verify(&reply, self.known.as_ref())?;
            Ok(reply)
        });
        verified.map_err(|what| Error::of(Failure::WrongReply(what)))
    }
}

/// Renews the worker's lease, four times per lease.
struct Keeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(link: Link, lease: Duration) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (watched, flag) = (stop.clone(), stopped.clone());
        let thread = threads::start(move || {
            let mut kept: Option<Line> = None;
            let renew = Message::Renew { seconds: lease.as_secs_f64() };
            let stopped = || flag.load(Ordering::Relaxed);
            while !stopped() {
                // A broken connection is replaced in the next round.
                kept = kept.or_else(|| link.connect(&Wait::at_most(GREETING, &stopped)).ok()).and_then(|mut line| {
                    line.tell(&renew, &Wait::at_most(lease / 4, &stopped)).is_ok().then_some(line)
                });
                let (lock, changed) = &*watched;
                let stop = lock.lock().expect("no panic under this lock");
                if !*stop {
                    let pause = if kept.is_some() { lease / 4 } else { lease / 20 };
                    drop(changed.wait_timeout(stop, pause).expect("no panic under this lock"));
                }
            }
        });
        let thread = thread.map_err(|e| Error::no_thread("the lease of a machine", &e))?;
        Ok(Self { stop, stopped, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        *self.stop.0.lock().expect("no panic under this lock") = true;
        self.stop.1.notify_all();
        // It is not joined, because it may be waiting for a machine that does not answer.
        drop(self.thread.take());
    }
}
