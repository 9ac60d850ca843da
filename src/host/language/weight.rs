//! Measures of the values of scripts: their depth of nesting, and their memory in this process.
//!
//! Both are checked between steps of a script. Memory is that of the process, without the memory of
//! primitives: models, records and texts.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rhai::{Array, Dynamic, EvalAltResult, EvalContext, FnPtr, Map, Position};

use super::bounds::{MAX_MEMORY, TOO_HEAVY};
use super::problem::ScriptResult;
use crate::memory;

/// The largest depth of nested arrays, maps and closures.
pub(crate) const MAX_NESTING: usize = 512;
/// Steps between two checks of depth; more if there are many values.
const LOOK_EVERY: u64 = 512;
/// Number of values that can be visited in the time of one step.
const PER_STEP: u64 = 4;
/// Time between two checks of memory.
const PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// Steps of scripts on this thread, and the step of the next check.
    static STEPS: Cell<(u64, u64)> = const { Cell::new((0, LOOK_EVERY)) };
}

/// Number of steps of this thread.
pub(crate) fn steps() -> u64 {
    STEPS.get().0
}

/// Counts a step of this thread, and returns their number.
pub(crate) fn step() -> u64 {
    let (steps, due) = STEPS.get();
    STEPS.set((steps + 1, due));
    steps
}

/// True if a visible variable is nested too deeply; checked from time to time.
pub(crate) fn too_nested(context: &EvalContext) -> bool {
    let (steps, due) = STEPS.get();
    if steps < due {
        return false;
    }
    let mut look = Look { seen: 0, path: Vec::new(), known: HashMap::new() };
    let mut variables = context.scope().iter_raw().map(|(.., value)| value).chain(context.this_ptr());
    let found = variables.any(|value| look.too_deep(value, 0));
    STEPS.set((steps, steps + LOOK_EVERY.max(look.seen / PER_STEP)));
    found
}

/// A walk through values.
struct Look {
    seen: u64,
    /// Addresses of the enclosing closures, because a closure may contain itself.
    path: Vec<usize>,
    /// Known depths of closures, which several values may share.
    known: HashMap<usize, usize>,
}

impl Look {
    fn too_deep(&mut self, value: &Dynamic, depth: usize) -> bool {
        self.seen += 1;
        if depth > MAX_NESTING {
            return true;
        }
        // Another thread, or an outer call, is modifying it.
        if value.is_locked() {
            return false;
        }
        if let Some(items) = value.read_lock::<Array>() {
            return items.iter().any(|item| self.too_deep(item, depth + 1));
        }
        if let Some(map) = value.read_lock::<Map>() {
            return map.values().any(|item| self.too_deep(item, depth + 1));
        }
        let Some(closure) = value.read_lock::<FnPtr>() else { return false };
        let address = &raw const *closure as usize;
        if self.path.contains(&address) || self.known.get(&address).is_some_and(|known| *known >= depth) {
            return false;
        }
        self.known.insert(address, depth);
        self.path.push(address);
        let found = closure.iter_curry().any(|item| self.too_deep(item, depth + 1));
        self.path.pop();
        found
    }
}

/// The account of all scripts of this process.
static MEMORY: Mutex<Account> =
    Mutex::new(Account { most: MAX_MEMORY, beside: None, at_work: 0, before: 0, looked: None });
/// True if the values took too much memory. It stays true, so that other threads end as well.
static HEAVY: AtomicBool = AtomicBool::new(false);
/// True if they seemed to, in the middle of a step: the next step of any thread checks again.
static SUSPECT: AtomicBool = AtomicBool::new(false);

struct Account {
    /// The limit in bytes.
    most: u64,
    /// Bytes that do not belong to scripts; None before the first check.
    beside: Option<u64>,
    /// Number of running primitives that allocate, and the memory when the first of them began.
    at_work: usize,
    before: u64,
    looked: Option<Instant>,
}

fn account() -> MutexGuard<'static, Account> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory from now on belongs to scripts, with the limit `most` in bytes.
pub(crate) fn begin(most: u64) {
    let mut account = account();
    account.most = most;
    account.beside = memory::resident_private();
    again();
}

/// Resets an exceeded limit for the next input of a prompt.
pub(crate) fn again() {
    HEAVY.store(false, Ordering::Relaxed);
    SUSPECT.store(false, Ordering::Relaxed);
}

/// True if a check of memory is due, or has failed already.
pub(crate) fn is_suspect() -> bool {
    SUSPECT.load(Ordering::Relaxed) || HEAVY.load(Ordering::Relaxed)
}

/// Checks the process regularly until `over`, on a separate thread: it sees the memory of many
/// threads together, each of which only checks between its own steps.
pub(crate) fn watch(over: impl Fn() -> bool) {
    while !over() {
        std::thread::sleep(PAUSE);
        let account = account();
        let taken = || Some(memory::resident_private()?.saturating_sub(account.beside?));
        if account.at_work == 0 && taken().is_some_and(|taken| taken > account.most) {
            SUSPECT.store(true, Ordering::Relaxed);
        }
    }
}

/// True if the values of scripts exceed their limit. It is unknown while a primitive allocates.
pub(crate) fn too_heavy() -> bool {
    if HEAVY.load(Ordering::Relaxed) {
        return true;
    }
    let due = SUSPECT.swap(false, Ordering::Relaxed);
    let mut account = account();
    let looked = || account.looked.is_some_and(|looked| looked.elapsed() < PAUSE);
    if account.at_work > 0 || (!due && looked()) {
        return false;
    }
    account.looked = Some(Instant::now());
    let Some(now) = memory::resident_private() else { return false };
    let beside = account.beside.map_or(now, |beside| beside.min(now));
    account.beside = Some(beside);
    let heavy = now - beside > account.most;
    if heavy {
        HEAVY.store(true, Ordering::Relaxed);
    }
    heavy
}

/// For functions that allocate much in one step.
///
/// # Errors
/// If the values exceed their limit.
pub(crate) fn bearable() -> ScriptResult<()> {
    match too_heavy() {
        true => Err(Box::new(EvalAltResult::ErrorTerminated(TOO_HEAVY.into(), Position::NONE))),
        false => Ok(()),
    }
}

/// Calls a primitive whose memory does not belong to scripts.
pub(crate) fn beside<T>(work: impl FnOnce() -> T) -> T {
    /// Counts the end of a primitive in any case.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            let mut account = account();
            account.at_work -= 1;
            if account.at_work == 0
                && let (Some(now), Some(beside)) = (memory::resident_private(), account.beside)
            {
                account.beside = Some(beside.saturating_add(now.saturating_sub(account.before)));
            }
        }
    }
    {
        let mut account = account();
        account.at_work += 1;
        if account.at_work == 1 {
            account.before = memory::resident_private().unwrap_or(0);
        }
    }
    let _over = Over;
    work()
}
