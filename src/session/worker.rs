//! The worker: it carries out the same requests on a machine that clients reach through a Unix
//! socket, and outlives their connections. The guardian decides when it ends, or the worker itself
//! if the guardian has gone.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::calls::{Call, Calls, Joined, locked};
use super::failure::Failure;
use super::guardian::{self, Adopted, AtEnd, GRACE, Inherited, TICK, end_machine, say};
use super::no_gpu::NoGpu;
use super::op::{Op, Reply};
use super::place::{Place, is_ours};
use super::pulse::{Limits, Page, now, seconds};
use super::wire::{self, Answer, Message, Status};
use super::{Local, Session};
use crate::error::{Error, Result};
use crate::hub;
use crate::progress::{Event, INTERRUPTED, Progress};
use crate::secret::Secret;
use crate::threads;

/// The largest number of connections. Beyond it, the one that has been silent for longest is
/// closed.
const MOST_CONNECTIONS: usize = 128;
/// The largest number of calls that one connection may follow.
const MOST_FOLLOWED: usize = 16;
/// A new client greets within this time.
const GREETING: Duration = Duration::from_secs(30);
/// A started frame and a started answer must make progress within this time.
const STANDSTILL: Duration = Duration::from_secs(120);
/// The largest request in bytes: the tokens of an extraction with five bytes each.
const LARGEST_REQUEST: usize = 1 << 30;
/// The most bytes of unfinished frames over all connections.
const MOST_ARRIVING: usize = 2 << 30;
/// Tokens of the hub are far shorter.
const LONGEST_TOKEN: usize = 4096;
/// A call that was running at this many deaths of workers in a row is not started again.
const MOST_DEATHS: u64 = 3;

/// Carries out requests until its guardian, a client or a signal ends it. Without a guardian it
/// takes over the guardian's duties.
pub fn work(folder: &Path, limits: &Limits, at_end: AtEnd, inherited: &Inherited) -> Result<()> {
    let Adopted { lock, listener, page } = inherited.adopt()?;
    guardian::take_signals();
    let worker = Arc::new(Worker::new(page, inherited.died.clone()));
    let accepting = worker.clone();
    let answering = threads::start(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => accepting.admit(stream),
                // A temporary error, such as too many open files.
                Err(_) => std::thread::sleep(TICK),
            }
        }
    });
    answering.map_err(|e| Error::no_thread("connections", &e))?;
    // SAFETY: it only returns a number.
    let is_alone = || unsafe { libc::getppid() } as u32 != inherited.guardian;
    let mut alone = false;
    let reason = loop {
        std::thread::sleep(TICK);
        worker.page.beats();
        if guardian::told() > 0 {
            worker.page.end_by_signal();
        }
        if is_alone() {
            if !alone {
                say("the guardian has gone: the worker looks after the machine itself");
                Place::find(folder).iter().for_each(Place::name_process);
            }
            alone = true;
            lock.show_life();
        }
        // A guardian writes its reason on the page.
        if (alone || worker.page.is_ending())
            && let Some(reason) = worker.page.over(limits)
        {
            break reason;
        }
    };
    worker.stop_calls();
    if is_alone() {
        end_machine(Place::find(folder).ok().as_ref(), &lock, &worker.page, &reason, at_end);
    }
    Ok(())
}

struct Worker {
    page: Page,
    local: Local,
    calls: Calls,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Bytes of frames that have begun to arrive.
    arriving: AtomicUsize,
    /// How the previous worker died.
    died: Option<String>,
    /// Determined once, because drivers are slow.
    no_gpu: OnceLock<Option<NoGpu>>,
}

struct Connection {
    stream: UnixStream,
    /// One answer at a time.
    writer: Mutex<UnixStream>,
    /// The time when its last request began to arrive.
    heard: AtomicU64,
    open: AtomicBool,
    followed: AtomicUsize,
}

impl Connection {
    fn new(stream: UnixStream) -> std::io::Result<Arc<Self>> {
        stream.set_write_timeout(Some(STANDSTILL))?;
        let writer = Mutex::new(stream.try_clone()?);
        let (heard, open, followed) = (AtomicU64::new(now()), AtomicBool::new(true), AtomicUsize::new(0));
        Ok(Arc::new(Self { stream, writer, heard, open, followed }))
    }

    fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = wire::send_frame(&mut *locked(&self.writer), frame);
        if sent.is_err() {
            // Half a frame may have been sent, and nothing after it would be understood.
            self.close();
        }
        sent
    }
}

impl Worker {
    fn new(page: Page, died: Option<String>) -> Self {
        let (local, calls, connections) = (Local::default(), Calls::default(), Mutex::default());
        let (arriving, no_gpu) = (AtomicUsize::new(0), OnceLock::new());
        Self { page, local, calls, connections, arriving, died, no_gpu }
    }

    fn stop_calls(&self) {
        INTERRUPTED.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + GRACE;
        while self.page.is_at_work() && Instant::now() < deadline {
            self.page.beats();
            std::thread::sleep(TICK);
        }
        // Time for the last outcomes to be sent.
        std::thread::sleep(TICK);
    }

    /// Serves a connection in a separate thread, if it is of the same user.
    fn admit(self: &Arc<Self>, stream: UnixStream) {
        let Some(connection) = is_ours(&stream).then(|| Connection::new(stream).ok()).flatten() else { return };
        let mut all = locked(&self.connections);
        let silent = all.iter().min_by_key(|known| known.heard.load(Ordering::SeqCst)).cloned();
        if all.len() >= MOST_CONNECTIONS
            && let Some(silent) = silent
        {
            silent.close();
            all.retain(|known| !Arc::ptr_eq(known, &silent));
        }
        all.push(connection.clone());
        drop(all);
        let (worker, served) = (self.clone(), connection.clone());
        let started = std::thread::Builder::new().spawn(move || {
            worker.serve(&served);
            worker.leave(&served);
        });
        if started.is_err() {
            self.leave(&connection);
        }
    }

    fn leave(&self, connection: &Arc<Connection>) {
        connection.close();
        locked(&self.connections).retain(|known| !Arc::ptr_eq(known, connection));
    }

    /// Serves one connection until it closes, or sends an invalid request.
    fn serve(self: &Arc<Self>, connection: &Arc<Connection>) {
        if wire::greet(&mut Until { stream: &connection.stream, deadline: Instant::now() + GREETING }).is_err() {
            return;
        }
        while let Ok(request) = self.receive(connection) {
            let answer = match request {
                Message::Call { id, op, seen, fresh } => {
                    if connection.followed.fetch_add(1, Ordering::SeqCst) >= MOST_FOLLOWED {
                        return;
                    }
                    let (call, seen) = match self.call(&id, *op, fresh) {
                        Begun::Before(call) => (call, seen),
                        Begun::Now(call) => (call, 0),
                    };
                    let to = connection.clone();
                    let follow = move || {
                        let _ = call.tell(seen, &to.open, |frame| to.send(frame));
                        to.followed.fetch_sub(1, Ordering::SeqCst);
                    };
                    if std::thread::Builder::new().spawn(follow).is_err() {
                        return;
                    }
                    continue;
                }
                other => self.answer(other),
            };
            let sent = answer.and_then(|answer| connection.send(&wire::frame(&answer)?));
            if sent.is_err() {
                return;
            }
        }
    }

    fn receive(&self, connection: &Connection) -> Result<Message> {
        wire::receive_up_to(&mut Arriving { worker: self, connection, count: 0 }, LARGEST_REQUEST)
    }

    /// An error closes the connection, because no answer can express it.
    fn answer(&self, request: Message) -> Result<Answer> {
        let senseless = |what| Err(Error::of(Failure::Senseless(what)));
        match request {
            Message::Call { .. } => return senseless("calls are answered by their own thread"),
            Message::Cancel { id } => {
                if let Some(call) = self.calls.find(&id) {
                    call.cancelled.store(true, Ordering::SeqCst);
                }
            }
            Message::Forget { id } => self.calls.forget(&id),
            Message::Renew { seconds: number } => match seconds(number) {
                Some(time) => self.page.renew(time),
                None => return senseless("a lease is renewed by a number of seconds"),
            },
            Message::HubToken { token } if token.len() > LONGEST_TOKEN => return senseless("no token is so long"),
            Message::HubToken { token } => hub::use_token(Secret::new(&token)),
            Message::Status => return Ok(Answer::Status(self.status())),
            Message::End => self.page.end_by_client(),
        }
        Ok(Answer::Done)
    }

    /// The call with this id, started now if it is new.
    fn call(self: &Arc<Self>, id: &str, op: Op, fresh: bool) -> Begun {
        let call = match self.calls.join(id, fresh) {
            Ok(Joined::Known(call)) => return Begun::Before(call),
            Ok(Joined::New(call)) => call,
            Err(error) => return Begun::Now(Call::refused(id, error)),
        };
        let again = (!fresh).then(|| self.died.as_ref()).flatten();
        match again {
            // The client has followed it at an earlier worker.
            Some(died) if self.page.deaths() >= MOST_DEATHS => {
                call.finish(Err(Error::of(Failure::DiedOften { deaths: self.page.deaths(), died: died.clone() })));
                return Begun::Now(call);
            }
            Some(died) => call.add(Event::Warning(format!(
                "the worker has died ({died}): this begins again, from its checkpoint where there is one"
            ))),
            None => (),
        }
        if fresh {
            self.page.forgive();
        }
        let (worker, started) = (self.clone(), call.clone());
        // It counts as running from now on, not from the start of its thread.
        let at_work = AtWork::begin(self.clone());
        let thread = std::thread::Builder::new().spawn(move || {
            worker.carry_out(&started, op);
            drop(at_work);
        });
        if let Err(error) = thread {
            call.finish(Err(Error::no_thread("a call", &error)));
        }
        Begun::Now(call)
    }

    fn carry_out(&self, call: &Call, op: Op) {
        let watcher = Watcher { worker: self, call };
        let work = || op.carry_out(&self.local, &watcher);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let outcome: std::result::Result<Reply, Error> =
            outcome.unwrap_or_else(|_| Err(Error::of(Failure::Panicked("a primitive"))));
        call.finish(outcome);
        self.page.forgive();
        self.calls.tidy();
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            age: self.page.age(),
            lease: self.page.lease(),
            at_work: self.calls.at_work(),
            since_progress: self.page.since_progress(),
            models: self.local.loaded().unwrap_or_default(),
            no_gpu: self.no_gpu.get_or_init(NoGpu::here).clone(),
        }
    }
}

/// Whether a client can have seen events of a call.
enum Begun {
    Before(Arc<Call>),
    Now(Arc<Call>),
}

/// Counts a call as running while this value lives.
struct AtWork(Arc<Worker>);

impl AtWork {
    fn begin(worker: Arc<Worker>) -> Self {
        worker.page.begin_work();
        Self(worker)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.page.end_work();
    }
}

/// The progress of one call, for its clients and for the stall limit.
struct Watcher<'a> {
    worker: &'a Worker,
    call: &'a Call,
}

impl Progress for Watcher<'_> {
    fn event(&self, event: Event) {
        self.worker.page.progressed();
        self.call.add(event);
    }

    fn interrupted(&self) -> bool {
        self.call.cancelled.load(Ordering::SeqCst) || INTERRUPTED.load(Ordering::SeqCst)
    }
}

/// A stream that is read until a deadline.
struct Until<'a> {
    stream: &'a UnixStream,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let mut stream = self.stream;
        stream.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A request as it arrives: its first byte may take any time, the following ones may not, and the
/// bytes that arrive at the same time are bounded.
struct Arriving<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
    count: usize,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.connection.stream.set_read_timeout((self.count > 0).then_some(STANDSTILL))?;
        let mut stream = &self.connection.stream;
        let count = stream.read(buffer)?;
        if self.count == 0 {
            self.connection.heard.store(now(), Ordering::SeqCst);
        }
        self.count += count;
        if self.worker.arriving.fetch_add(count, Ordering::SeqCst) + count > MOST_ARRIVING {
            return Err(std::io::Error::other("too much arrives at once"));
        }
        Ok(count)
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.worker.arriving.fetch_sub(self.count, Ordering::SeqCst);
    }
}
