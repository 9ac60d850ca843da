//! What the values of scripts weigh: how deep they are nested, and what all of them together take of this process' memory.
//!
//! Both are looked at between two steps of a script. Memory is that of the process, without what the primitives brought: models,
//! records and texts are theirs.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rhai::{Array, Dynamic, EvalAltResult, EvalContext, FnPtr, Map, Position};

use super::bounds::{MAX_MEMORY, TOO_HEAVY};
use super::problem::ScriptResult;
use crate::memory;

/// Levels of arrays, maps and closures inside each other.
pub const MAX_NESTING: usize = 512;
/// Steps between two looks at how deep values are; more where there are many.
const LOOK_EVERY: u64 = 512;
/// Values looked at in the time of one step of a script.
const PER_STEP: u64 = 4;
/// Between two looks at memory.
const PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// Steps of scripts on this thread, and the step from which values are looked at again.
    static STEPS: Cell<(u64, u64)> = const { Cell::new((0, LOOK_EVERY)) };
}

/// Steps of this thread so far.
pub fn steps() -> u64 {
    STEPS.get().0
}

/// Counts a step of this thread; how many there were.
pub fn step() -> u64 {
    let (steps, due) = STEPS.get();
    STEPS.set((steps + 1, due));
    steps
}

/// Whether a variable that the script sees here is nested too deeply; looked at from time to time.
pub fn too_nested(context: &EvalContext) -> bool {
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
    /// Closures above the value at hand, by their addresses: one may hold itself.
    path: Vec<usize>,
    /// How deep closures were found: several values may share one.
    known: HashMap<usize, usize>,
}

impl Look {
    fn too_deep(&mut self, value: &Dynamic, depth: usize) -> bool {
        self.seen += 1;
        if depth > MAX_NESTING {
            return true;
        }
        // Another thread, or a call further out, is changing it.
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

/// Of all scripts of this process.
static MEMORY: Mutex<Account> =
    Mutex::new(Account { most: MAX_MEMORY, beside: None, at_work: 0, before: 0, looked: None });
/// Whether the values took too much. Whoever catches the error of one thread does not go on with another.
static HEAVY: AtomicBool = AtomicBool::new(false);
/// Whether they seemed to, when the process was looked at in the middle of a step: the next step of any thread looks again.
static SUSPECT: AtomicBool = AtomicBool::new(false);

struct Account {
    /// Bytes that they may take.
    most: u64,
    /// Bytes that are not the scripts'; nothing before the first look.
    beside: Option<u64>,
    /// Primitives that bring memory, and what was taken when the first of them began.
    at_work: usize,
    before: u64,
    looked: Option<Instant>,
}

fn account() -> MutexGuard<'static, Account> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is taken from here on is the scripts', and may be `most` bytes.
pub fn begin(most: u64) {
    let mut account = account();
    account.most = most;
    account.beside = memory::resident_private();
    again();
}

/// What has been too much is over: the next input of a prompt.
pub fn again() {
    HEAVY.store(false, Ordering::Relaxed);
    SUSPECT.store(false, Ordering::Relaxed);
}

/// Whether a look at the memory is due, or has found too much already.
pub fn is_suspect() -> bool {
    SUSPECT.load(Ordering::Relaxed) || HEAVY.load(Ordering::Relaxed)
}

/// Looks at the process now and then, until `over`: a thread of its own sees what many threads take together, of which each
/// looks only between its own steps.
pub fn watch(over: impl Fn() -> bool) {
    while !over() {
        std::thread::sleep(PAUSE);
        let account = account();
        let taken = || Some(memory::resident_private()?.saturating_sub(account.beside?));
        if account.at_work == 0 && taken().is_some_and(|taken| taken > account.most) {
            SUSPECT.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether the values of scripts take more than they may. While a primitive brings memory there is no telling.
pub fn too_heavy() -> bool {
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

/// For functions that make much in one step.
///
/// # Errors
/// That of values which take more memory than they may.
pub fn bearable() -> ScriptResult<()> {
    match too_heavy() {
        true => Err(Box::new(EvalAltResult::ErrorTerminated(TOO_HEAVY.into(), Position::NONE))),
        false => Ok(()),
    }
}

/// Calls a primitive whose memory is its own.
pub fn beside<T>(work: impl FnOnce() -> T) -> T {
    /// Counts the end of the work, whatever it was.
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
