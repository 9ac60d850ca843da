//! Threads for scripts, with large stacks of known size, so that a script that fills one is ended
//! with an error. A stack overflow would end the program and leave machines behind.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};

use crate::memory;

/// Stack sizes in bytes for the first thread of a script, in the order in which they are tried: 128
/// function calls, each inside a deep expression, fit.
const MAIN: [usize; 3] = [256 << 20, 64 << 20, 16 << 20];
/// Stack sizes in bytes for a thread of `parallel`, in the order in which they are tried.
const HELPER: [usize; 2] = [64 << 20, 16 << 20];
/// Address space in bytes that stays free beside a stack, where `ulimit -v` limits it. A program
/// without any ends in the middle of its work.
const SPARE: u64 = 256 << 20;
/// The part of a stack that is reserved for a primitive, and for copying, showing and dropping a
/// value of the deepest nesting.
const RESERVE: usize = 4 << 20;
/// The largest number of threads of `parallel` at a time, including nested ones.
pub const MAX_HELPERS: usize = 128;
/// The largest number of calls of `parallel` inside each other.
pub const MAX_NESTED: usize = 8;

thread_local! {
    /// The address below which this thread starts no further step of a script; 0 on other threads.
    static END: Cell<usize> = const { Cell::new(0) };
    /// Number of calls of `parallel` around the work of this thread.
    static NESTED: Cell<usize> = const { Cell::new(0) };
}

/// Number of calls of `parallel` around the work of this thread.
pub fn nested() -> usize {
    NESTED.get()
}

/// Calls `work` as part of the call of `parallel` that has `outer` calls around it.
pub fn inside<T>(outer: usize, work: impl FnOnce() -> T) -> T {
    let before = NESTED.replace(outer + 1);
    let done = work();
    NESTED.set(before);
    done
}

/// The current position of the stack.
#[inline(never)]
fn here() -> usize {
    let local = 0u8;
    std::hint::black_box(&raw const local) as usize
}

fn begin(bytes: usize) {
    END.set(here().saturating_sub(bytes - RESERVE));
}

/// True if another step of a script may run on this thread.
#[inline]
pub fn has_room() -> bool {
    let local = 0u8;
    std::hint::black_box(&raw const local) as usize > END.get()
}

/// True if a stack of this size leaves enough address space.
fn fits(bytes: &usize) -> bool {
    memory::address_space_left().is_none_or(|left| left >= *bytes as u64 + SPARE)
}

/// Calls `work` on a thread with a large stack and waits for it.
///
/// # Errors
/// The payload of a panic.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> std::thread::Result<T> {
    let work = std::sync::Mutex::new(Some(work));
    let take = || work.lock().ok().and_then(|mut work| work.take());
    std::thread::scope(|scope| {
        // The smallest one in any case.
        let first = MAIN.iter().position(fits).unwrap_or(MAIN.len() - 1);
        for &bytes in &MAIN[first..] {
            let started = Builder::new().name("main".to_string()).stack_size(bytes).spawn_scoped(scope, move || {
                begin(bytes);
                take().map(|work| work())
            });
            if let Ok(thread) = started {
                return thread.join().map(|done| done.expect("taken once"));
            }
        }
        // No thread can be started.
        Ok(take().expect("nobody has taken it")())
    })
}

/// Number of running threads of `parallel`.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Releases a slot for a thread.
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts `work` on another thread, unless there are too many of them or the system has none left.
pub fn help<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, work: impl FnOnce() + Send + 'scope) -> bool {
    if HELPERS.fetch_add(1, Ordering::Relaxed) >= MAX_HELPERS {
        drop(Place);
        return false;
    }
    let place = Place;
    // One after the other, so that each sees what the others have taken.
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bytes) = HELPER.into_iter().find(fits) else { return false };
    let started = Builder::new().stack_size(bytes).spawn_scoped(scope, move || {
        let _place = place;
        begin(bytes);
        work();
    });
    started.is_ok()
}
