//! Threads when the system gives few or none (`ulimit -u`, a container's limit of processes): an error that says so, and no
//! panic. The pool that computes has as many threads as are to be had.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
/// That of the system, where it has none left.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().spawn(work)
}

/// Starts a thread that ends with `scope`.
///
/// # Errors
/// That of the system, where it has none left.
pub fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work)
}

/// Checks that so many more threads can be started at once: for libraries that panic where they cannot.
///
/// # Errors
/// That of the system, where it has fewer left.
pub fn spare(count: usize) -> io::Result<()> {
    (0..count).map(|_| Held::start()).collect::<io::Result<Vec<Held>>>().map(drop)
}

/// A thread that is there and does nothing until this is dropped.
struct Held {
    thread: Option<JoinHandle<()>>,
    end: Option<Sender<()>>,
}

impl Held {
    fn start() -> io::Result<Self> {
        let (end, ended) = channel();
        let thread = Builder::new().spawn(move || {
            let _ = ended.recv();
        })?;
        Ok(Self { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sees to it that the pool that computes is there, before the first work in it: it would panic where it cannot start all of
/// its threads. With fewer than there are processors the numbers are the same, later.
///
/// # Errors
/// That of the system, where not even one thread can be started; another call tries again.
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
    // One that is there already (a test has made it) is as good.
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
