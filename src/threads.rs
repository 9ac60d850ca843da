//! Threads on systems that allow few or none (`ulimit -u`, or a container's limit on processes): an
//! error says so, and nothing panics. The thread pool gets as many threads as the system allows.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
/// The system's error if it allows no more threads.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().spawn(work)
}

/// Starts a thread that ends with `scope`.
///
/// # Errors
/// The system's error if it allows no more threads.
pub fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work)
}

/// Checks that `count` more threads can be started at the same time. It is called before libraries
/// that panic if they cannot.
///
/// # Errors
/// The system's error if it allows fewer.
pub fn spare(count: usize) -> io::Result<()> {
    (0..count).map(|_| ParkedThread::start()).collect::<io::Result<Vec<ParkedThread>>>().map(drop)
}

/// A thread that sleeps until this value is dropped.
struct ParkedThread {
    thread: Option<JoinHandle<()>>,
    end: Option<Sender<()>>,
}

impl ParkedThread {
    fn start() -> io::Result<Self> {
        let (end, ended) = channel();
        let thread = Builder::new().spawn(move || {
            let _ = ended.recv();
        })?;
        Ok(Self { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for ParkedThread {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Starts the global thread pool before its first use, because the pool panics if it cannot start
/// all of its threads. With fewer threads than processors the numbers are the same, only later.
///
/// # Errors
/// The system's error if not even one thread can be started. A later call tries again.
pub fn pool() -> io::Result<()> {
    static READY: Mutex<bool> = Mutex::new(false);
    let mut ready = READY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*ready {
        start_pool()?;
        *ready = true;
    }
    Ok(())
}

fn start_pool() -> io::Result<()> {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
    let wanted = asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get()));
    let mut waiting: Vec<Sender<rayon::ThreadBuilder>> = Vec::new();
    for _ in 0..wanted {
        let (give, given) = channel::<rayon::ThreadBuilder>();
        match Builder::new().spawn(move || given.recv().map(rayon::ThreadBuilder::run)) {
            Ok(_) => waiting.push(give),
            Err(e) if waiting.is_empty() => return Err(e),
            Err(_) => break,
        }
    }
    let count = waiting.len();
    let mut waiting = waiting.into_iter();
    let built = rayon::ThreadPoolBuilder::new().num_threads(count).spawn_handler(move |thread| {
        let one = waiting.next().ok_or(io::ErrorKind::NotFound)?;
        one.send(thread).map_err(|_| io::ErrorKind::BrokenPipe.into())
    });
    // An existing pool, for example one that a test has started, serves as well.
    let _ = built.build_global();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_to_be_had_are_had() {
        spare(3).unwrap();
        pool().unwrap();
        pool().unwrap();
        assert!(rayon::current_num_threads() >= 1);
        assert_eq!(start(|| 5).unwrap().join().unwrap(), 5);
    }
}
