//! Threads that scripts run on: their stacks are large and their ends are known, so that a script that nears the end of one is
//! ended with an error. A stack that overflows would end the program, which leaves machines behind.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope};

/// Bytes for the thread that a script begins on: 128 calls of functions, each inside a deep expression, fit. Tried in this
/// order, where the system gives no more.
const MAIN: [usize; 3] = [256 << 20, 64 << 20, 16 << 20];
/// Bytes for a thread of `parallel`.
const HELPER: usize = 64 << 20;
/// What is left for a primitive, and for a value of the deepest nesting to be copied, shown and given back.
const RESERVE: usize = 4 << 20;
/// Threads of `parallel` at once, those inside of others counted.
pub const MAX_HELPERS: usize = 128;

thread_local! {
    /// The address below which this thread starts no further step of a script; 0 on threads that were not made here.
    static END: Cell<usize> = const { Cell::new(0) };
}

/// Where the stack is now.
#[inline(never)]
fn here() -> usize {
    let local = 0u8;
    std::hint::black_box(&raw const local) as usize
}

fn begin(bytes: usize) {
    END.set(here().saturating_sub(bytes - RESERVE));
}

/// Whether another step of a script may be taken on this thread.
#[inline]
pub fn has_room() -> bool {
    let local = 0u8;
    std::hint::black_box(&raw const local) as usize > END.get()
}

/// Calls `work` on a thread with a large stack and waits for it. The error is that of a panic.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> std::thread::Result<T> {
    let work = std::sync::Mutex::new(Some(work));
    let take = || work.lock().ok().and_then(|mut work| work.take());
    std::thread::scope(|scope| {
        for bytes in MAIN {
            let started = Builder::new().name("main".to_string()).stack_size(bytes).spawn_scoped(scope, move || {
                begin(bytes);
                take().map(|work| work())
            });
            if let Ok(thread) = started {
                return thread.join().map(|done| done.expect("taken once"));
            }
        }
        // Not even one thread is to be had.
        Ok(take().expect("nobody has taken it")())
    })
}

/// Threads of `parallel` that are alive.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Gives a place among the helpers back.
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts `work` on a further thread, unless there are too many of them or the system has none left.
pub fn help<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, work: impl FnOnce() + Send + 'scope) -> bool {
    if HELPERS.fetch_add(1, Ordering::Relaxed) >= MAX_HELPERS {
        drop(Place);
        return false;
    }
    let place = Place;
    let started = Builder::new().stack_size(HELPER).spawn_scoped(scope, move || {
        let _place = place;
        begin(HELPER);
        work();
    });
    started.is_ok()
}
