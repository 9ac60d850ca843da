//! Measures of the values of scripts: their depth of nesting, their size, and their memory in this
//! process.
//!
//! All are checked between steps of a script. Memory is that of the process, without the memory of
//! primitives: models, records and texts. Rhai's own check of sizes walks through the whole array
//! at every call on it, so a loop of `push` would take quadratic time. Here a walk through the
//! variables is due when as many steps have been taken as it took time, or when memory has grown.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rhai::{Array, Blob, Dynamic, EvalAltResult, EvalContext, FnPtr, ImmutableString, Map, Position};

use super::bounds::{MAX_ARRAY, MAX_MAP, MAX_MEMORY, MAX_STRING, TOO_HEAVY, TOO_NESTED, too_large};
use super::problem::ScriptResult;
use crate::memory;

/// The largest depth of nested arrays, maps and closures.
pub(crate) const MAX_NESTING: usize = 512;
/// Steps between two walks through the variables; more if there are many values.
const LOOK_EVERY: u64 = 512;
/// Number of values that can be visited in the time of one step.
const PER_STEP: u64 = 4;
/// Time between two checks of memory.
const PAUSE: Duration = Duration::from_millis(5);
/// A walk through the variables is due when memory has grown by so many bytes, and by a quarter.
const GROWTH: u64 = 64 << 20;

thread_local! {
    /// Steps of scripts on this thread, and the step of the next check.
    static STEPS: Cell<(u64, u64)> = const { Cell::new((0, LOOK_EVERY)) };
    /// The growth of memory that this thread has looked at.
    static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
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

/// Checks the visible variables from time to time.
///
/// # Errors
/// If one is too large or nested too deeply.
pub(crate) fn bounded(context: &EvalContext) -> ScriptResult<()> {
    let (steps, due) = STEPS.get();
    let grown = GROWN.load(Ordering::Relaxed);
    if steps < due && grown == LOOKED_AT.replace(grown) {
        return Ok(());
    }
    let mut seen = 0;
    let mut variables = context.scope().iter_raw().map(|(.., value)| value).chain(context.this_ptr());
    let found = variables.try_for_each(|value| {
        let mut look = Look::default();
        let found = look.at(value, 0);
        seen += look.seen;
        found
    });
    STEPS.set((steps, steps + LOOK_EVERY.max(seen / PER_STEP)));
    found
}

/// A walk through a value.
#[derive(Default)]
struct Look {
    seen: u64,
    /// Addresses of the enclosing closures, because a closure may contain itself.
    path: Vec<usize>,
    /// Known depths of closures, which several values may share.
    known: HashMap<usize, usize>,
    /// Items of arrays and blobs, entries of maps, and bytes of texts outside of closures.
    items: usize,
    entries: usize,
    bytes: usize,
}

impl Look {
    fn at(&mut self, value: &Dynamic, depth: usize) -> ScriptResult<()> {
        self.seen += 1;
        if depth > MAX_NESTING {
            return Err(Box::new(EvalAltResult::ErrorTerminated(TOO_NESTED.into(), Position::NONE)));
        }
        // Most values are numbers.
        if !value.is_shared() && (value.is_int() || value.is_float() || value.is_unit() || value.is_bool()) {
            return Ok(());
        }
        // Another thread, or an outer call, is modifying it.
        if value.is_locked() {
            return Ok(());
        }
        if let Some(items) = value.read_lock::<Array>() {
            self.adds(items.len(), 0, 0)?;
            return items.iter().try_for_each(|item| self.at(item, depth + 1));
        }
        if let Some(map) = value.read_lock::<Map>() {
            self.adds(0, map.len(), 0)?;
            return map.values().try_for_each(|item| self.at(item, depth + 1));
        }
        if let Some(text) = value.read_lock::<ImmutableString>() {
            return self.adds(0, 0, text.len());
        }
        if let Some(blob) = value.read_lock::<Blob>() {
            return self.adds(blob.len(), 0, 0);
        }
        match value.read_lock::<FnPtr>() {
            Some(closure) => self.at_closure(&closure, depth),
            None => Ok(()),
        }
    }

    fn adds(&mut self, items: usize, entries: usize, bytes: usize) -> ScriptResult<()> {
        if !self.path.is_empty() {
            return Ok(());
        }
        self.items += items;
        self.entries += entries;
        self.bytes += bytes;
        match (self.items > MAX_ARRAY, self.entries > MAX_MAP, self.bytes > MAX_STRING) {
            (true, ..) => Err(too_large("Size of array/BLOB")),
            (_, true, _) => Err(too_large("Size of object map")),
            (.., true) => Err(too_large("Length of string")),
            _ => Ok(()),
        }
    }

    fn at_closure(&mut self, closure: &FnPtr, depth: usize) -> ScriptResult<()> {
        let address = &raw const *closure as usize;
        if self.path.contains(&address) || self.known.get(&address).is_some_and(|known| *known >= depth) {
            return Ok(());
        }
        self.known.insert(address, depth);
        self.path.push(address);
        let found = closure.iter_curry().try_for_each(|item| self.at(item, depth + 1));
        self.path.pop();
        found
    }
}

/// The account of all scripts of this process.
static MEMORY: Mutex<Account> =
    Mutex::new(Account { most: MAX_MEMORY, beside: None, at_work: 0, before: 0, looked: None, level: 0 });
/// True if the values took too much memory. It stays true, so that other threads end as well.
static HEAVY: AtomicBool = AtomicBool::new(false);
/// True if they seemed to, or to have grown, in the middle of a step: the next step of
/// any thread checks again.
static SUSPECT: AtomicBool = AtomicBool::new(false);
/// How often memory has grown.
static GROWN: AtomicU64 = AtomicU64::new(0);

struct Account {
    /// The limit in bytes.
    most: u64,
    /// Bytes that do not belong to scripts; None before the first check.
    beside: Option<u64>,
    /// Number of running primitives that allocate, and the memory when the first of them began.
    at_work: usize,
    before: u64,
    looked: Option<Instant>,
    /// Bytes of scripts when they had last grown, or the least since then.
    level: u64,
}

impl Account {
    /// Bytes of scripts above which they have grown.
    fn grown(&self) -> u64 {
        self.level + GROWTH.max(self.level / 4)
    }
}

fn account() -> MutexGuard<'static, Account> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory from now on belongs to scripts, with the limit `most` in bytes.
pub(crate) fn begin(most: u64) {
    let mut account = account();
    // Values that fill the address space (`ulimit -v`) would end the program in the middle of them.
    account.most = memory::address_space_left().map_or(most, |left| most.min(left / 2));
    account.beside = memory::resident_private();
    account.level = 0;
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
        let most = account.most.min(account.grown());
        if account.at_work == 0 && taken().is_some_and(|taken| taken > most) {
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
    let taken = now - beside;
    account.level = account.level.min(taken);
    if taken > account.grown() {
        account.level = taken;
        GROWN.fetch_add(1, Ordering::Relaxed);
    }
    let heavy = taken > account.most;
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
