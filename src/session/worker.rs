//! `outlier worker`: the same requests as everywhere, on a machine that clients reach through a Unix socket. It outlives
//! their connections, and ends the machine when nobody wants it any more.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::wire::{self, Answer, Request, Status};
use super::{Local, Op, Reply, Session};
use crate::error::{Error, Kind, Result};
use crate::hub;
use crate::progress::{Event, Progress, interrupt_requested};
use crate::secret::Secret;

/// How often the limits are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Calls get so long to stop at a safe point before the process ends.
const GRACE: Duration = Duration::from_secs(20);
/// Outcomes that no client has fetched are kept up to this number; the oldest goes first.
const KEPT_OUTCOMES: usize = 64;

/// When a worker ends by itself. All in seconds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Without a word from a client that wants the machine.
    pub lease: Option<f64>,
    /// While a call is at work, without any progress of it.
    pub stall: Option<f64>,
    /// In all.
    pub lifetime: Option<f64>,
}

/// The socket that clients connect to.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("worker.sock")
}

/// Serves until a limit is reached or a client says so; gives the reason.
pub fn serve(folder: &Path, limits: &Limits) -> Result<String> {
    fs::create_dir_all(folder).map_err(|e| Error::io(format!("creating {}", folder.display()), &e))?;
    let _only = only_one(folder)?;
    let path = socket(folder);
    let _ = fs::remove_file(&path);
    let listening = |e: std::io::Error| {
        Error::io(format!("listening on {}", path.display()), &e).hint("the path of a socket has at most 107 bytes")
    };
    let listener = UnixListener::bind(&path).map_err(listening)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(listening)?;
    let worker = Arc::new(Worker::new(limits.clone()));
    let accepting = worker.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let worker = accepting.clone();
            std::thread::spawn(move || worker.client(stream));
        }
    });
    let reason = loop {
        std::thread::sleep(TICK);
        if let Some(reason) = worker.over() {
            break reason;
        }
    };
    worker.stop_calls();
    let _ = fs::remove_file(&path);
    Ok(reason)
}

/// Holds a lock while one worker serves a folder.
fn only_one(folder: &Path) -> Result<File> {
    let path = folder.join("worker.lock");
    let locking = |e: std::io::Error| Error::io(format!("locking {}", path.display()), &e);
    let file = File::options().create(true).append(true).open(&path).map_err(locking)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let message = format!("another worker serves {} already", folder.display());
            Err(Error::bad_argument(message).hint("attach to it"))
        }
        Err(fs::TryLockError::Error(e)) => Err(locking(e)),
    }
}

struct Worker {
    limits: Limits,
    local: Local,
    calls: Mutex<Vec<(String, Arc<Call>)>>,
    started: Instant,
    pulse: Mutex<Pulse>,
    ended: AtomicBool,
}

struct Pulse {
    leased_until: Option<Instant>,
    progress: Instant,
}

/// One call: what has happened so far, for every connection that asks.
struct Call {
    happened: Mutex<Happened>,
    more: Condvar,
    cancelled: AtomicBool,
}

#[derive(Default)]
struct Happened {
    events: Vec<Event>,
    outcome: Option<std::result::Result<Reply, Error>>,
}

impl Worker {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let leased_until = limits.lease.map(|seconds| now + Duration::from_secs_f64(seconds));
        Self {
            limits,
            local: Local::default(),
            calls: Mutex::default(),
            started: now,
            pulse: Mutex::new(Pulse { leased_until, progress: now }),
            ended: AtomicBool::new(false),
        }
    }

    /// Why it is time to end, if it is.
    fn over(&self) -> Option<String> {
        if self.ended.load(Ordering::Relaxed) {
            return Some("a client ended it".to_string());
        }
        if interrupt_requested() {
            return Some("it was told to stop by a signal".to_string());
        }
        let now = Instant::now();
        let pulse = self.pulse.lock().expect("no panic under this lock");
        if pulse.leased_until.is_some_and(|until| now > until) {
            return Some("its lease ran out: no client has renewed it".to_string());
        }
        let since = (now - pulse.progress).as_secs_f64();
        if self.limits.stall.is_some_and(|limit| since > limit) && !self.at_work().is_empty() {
            return Some(format!("no call has made progress for {since:.0} s"));
        }
        let age = self.started.elapsed().as_secs_f64();
        let old = self.limits.lifetime.is_some_and(|limit| age > limit);
        old.then(|| format!("its lifetime of {age:.0} s is over"))
    }

    fn at_work(&self) -> Vec<String> {
        let calls = self.calls.lock().expect("no panic under this lock");
        calls.iter().filter(|(_, call)| !call.is_done()).map(|(id, _)| id.clone()).collect()
    }

    fn stop_calls(&self) {
        for (_, call) in self.calls.lock().expect("no panic under this lock").iter() {
            call.cancelled.store(true, Ordering::Relaxed);
        }
        let deadline = Instant::now() + GRACE;
        while !self.at_work().is_empty() && Instant::now() < deadline {
            std::thread::sleep(TICK);
        }
        // The last outcomes get on their way.
        std::thread::sleep(TICK);
    }

    fn progressed(&self) {
        self.pulse.lock().expect("no panic under this lock").progress = Instant::now();
    }

    /// Answers one connection until it closes.
    fn client(self: &Arc<Self>, mut stream: UnixStream) {
        if wire::greet(&mut stream).is_err() {
            return;
        }
        let Ok(writer) = stream.try_clone() else { return };
        let writer = Arc::new(Mutex::new(writer));
        while let Ok(request) = wire::receive(&mut stream) {
            let answer = match request {
                Request::Call { id, op, seen, fresh } => {
                    let call = self.call(&id, *op, fresh);
                    let writer = writer.clone();
                    std::thread::spawn(move || call.tell(&id, seen, &writer));
                    continue;
                }
                other => self.answer(other),
            };
            let sent = wire::send(&mut *writer.lock().expect("no panic under this lock"), &answer);
            if sent.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Call { .. } => unreachable!("calls are answered by their own thread"),
            Request::Cancel { id } => {
                if let Some(call) = self.find(&id) {
                    call.cancelled.store(true, Ordering::Relaxed);
                }
            }
            Request::Forget { id } => {
                self.calls.lock().expect("no panic under this lock").retain(|(known, _)| *known != id)
            }
            Request::Renew { seconds } => {
                let mut pulse = self.pulse.lock().expect("no panic under this lock");
                pulse.leased_until = pulse.leased_until.map(|_| Instant::now() + Duration::from_secs_f64(seconds));
            }
            Request::HubToken { token } => hub::use_token(Secret::new(&token)),
            Request::Status => return Answer::Status(self.status()),
            Request::End => self.ended.store(true, Ordering::Relaxed),
        }
        Answer::Done
    }

    fn find(&self, id: &str) -> Option<Arc<Call>> {
        let calls = self.calls.lock().expect("no panic under this lock");
        calls.iter().find(|(known, _)| known == id).map(|(_, call)| call.clone())
    }

    /// The call with this id, started now if it is new.
    fn call(self: &Arc<Self>, id: &str, op: Op, fresh: bool) -> Arc<Call> {
        let mut calls = self.calls.lock().expect("no panic under this lock");
        if fresh {
            calls.retain(|(known, call)| known != id || !call.is_spoilt());
        }
        if let Some((_, call)) = calls.iter().find(|(known, _)| known == id) {
            return call.clone();
        }
        let done = |calls: &[(String, Arc<Call>)]| calls.iter().position(|(_, call)| call.is_done());
        while calls.len() >= KEPT_OUTCOMES
            && let Some(oldest) = done(&calls)
        {
            calls.remove(oldest);
        }
        let call =
            Arc::new(Call { happened: Mutex::default(), more: Condvar::new(), cancelled: AtomicBool::new(false) });
        calls.push((id.to_string(), call.clone()));
        self.progressed();
        let (worker, started) = (self.clone(), call.clone());
        std::thread::spawn(move || worker.carry_out(&started, op));
        call
    }

    fn carry_out(&self, call: &Call, op: Op) {
        let watcher = Watcher { worker: self, call };
        let work = || self.local.call(op, &watcher);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Error::new(Kind::Unsupported, "a primitive panicked; this is a fault of the program"))
        });
        self.progressed();
        call.happened.lock().expect("no panic under this lock").outcome = Some(outcome);
        call.more.notify_all();
    }

    fn status(&self) -> Status {
        let at_work = self.at_work();
        let pulse = self.pulse.lock().expect("no panic under this lock");
        Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            age: self.started.elapsed().as_secs_f64(),
            lease: pulse.leased_until.map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64()),
            at_work,
            since_progress: pulse.progress.elapsed().as_secs_f64(),
            models: self.local.loaded().unwrap_or_default(),
        }
    }
}

impl Call {
    fn is_done(&self) -> bool {
        self.happened.lock().expect("no panic under this lock").outcome.is_some()
    }

    /// Whether whoever asks now would not get what was asked for.
    fn is_spoilt(&self) -> bool {
        let failed = |outcome: &std::result::Result<Reply, Error>| outcome.is_err();
        let failed = self.happened.lock().expect("no panic under this lock").outcome.as_ref().is_some_and(failed);
        failed || self.cancelled.load(Ordering::Relaxed)
    }

    /// Sends everything that happens after the first `seen` events, the outcome last; ends with the connection.
    fn tell(&self, id: &str, seen: usize, writer: &Mutex<UnixStream>) {
        let mut next = seen;
        loop {
            let mut happened = self.happened.lock().expect("no panic under this lock");
            // A client may have seen more: of a worker before this one.
            next = next.min(happened.events.len());
            let (events, outcome) = loop {
                if next < happened.events.len() || happened.outcome.is_some() {
                    break (happened.events[next..].to_vec(), happened.outcome.clone());
                }
                happened = self.more.wait(happened).expect("no panic under this lock");
            };
            drop(happened);
            next += events.len();
            let mut writer = writer.lock().expect("no panic under this lock");
            for event in events {
                if wire::send(&mut *writer, &Answer::Event { id: id.to_string(), event }).is_err() {
                    return;
                }
            }
            if let Some(outcome) = outcome {
                let _ = wire::send(&mut *writer, &Answer::Outcome { id: id.to_string(), outcome });
                return;
            }
        }
    }
}

/// The progress of one call, for its clients and for the limit on standing still.
struct Watcher<'a> {
    worker: &'a Worker,
    call: &'a Call,
}

impl Progress for Watcher<'_> {
    fn event(&self, event: Event) {
        self.worker.progressed();
        self.call.happened.lock().expect("no panic under this lock").events.push(event);
        self.call.more.notify_all();
    }

    fn interrupted(&self) -> bool {
        self.call.cancelled.load(Ordering::Relaxed) || interrupt_requested()
    }
}
