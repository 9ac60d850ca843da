//! What a script may use up: steps, time, depth, and the size of its values. docs/security.md lists them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhai::{Engine, EvalAltResult, Position};

use super::context::Bounds;
use super::{deep, weight};
use crate::progress::interrupt_requested;

/// Deep enough for honest recursion, shallow enough to end a runaway before the stack does.
const MAX_CALL_LEVELS: usize = 128;
const MAX_EXPRESSION_DEPTH: usize = 256;
/// Bytes of one string.
pub const MAX_STRING: usize = 64 << 20;
/// Items of one array, inner ones counted.
pub const MAX_ARRAY: usize = 4_000_000;
/// Entries of one map, inner ones counted.
pub const MAX_MAP: usize = 1_000_000;
/// After Ctrl-C a script may run so long: enough to catch the interruption of a primitive and say what is done.
const GRACE: Duration = Duration::from_secs(1);
/// Memory that the values of scripts may take together, bytes.
pub const MAX_MEMORY: u64 = 1 << 30;
/// Bytes of the text of a script or module.
pub const MAX_SCRIPT: u64 = 4 << 20;
/// What ends a script whose time is over.
pub const OUT_OF_TIME: &str = "out of time";
/// What ends a script whose calls and expressions fill the stack.
pub const TOO_DEEP: &str = "too deep";
/// What ends a script whose values are nested too deeply.
pub const TOO_NESTED: &str = "too nested";
/// What ends a script whose values take too much memory.
pub const TOO_HEAVY: &str = "too heavy";
/// What ends a script that goes on long after Ctrl-C.
pub const STOPPED: &str = "interrupted";
/// Steps between two looks at the time.
const LOOK_EVERY: u64 = 1024;
/// Steps between two looks at the memory.
const WEIGH_EVERY: u64 = 16;

/// Bounds of values and of nesting.
pub fn sizes(engine: &mut Engine) {
    engine.set_max_call_levels(MAX_CALL_LEVELS).set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH);
    engine.set_max_string_size(MAX_STRING).set_max_array_size(MAX_ARRAY).set_max_map_size(MAX_MAP);
}

/// Bounds of steps, time, stack and memory, and Ctrl-C.
pub fn apply(engine: &mut Engine, bounds: &Bounds) {
    engine.set_max_operations(bounds.operations);
    let deadline = bounds.time.and_then(|time| Instant::now().checked_add(time));
    let noticed = Mutex::new(None::<Instant>);
    let any = AtomicBool::new(false);
    let memory = bounds.memory;
    weight::begin();
    #[allow(deprecated)] // the hook is marked volatile, not going away
    engine.on_var(|_, _, context| match weight::too_nested(&context) {
        true => Err(Box::new(EvalAltResult::ErrorTerminated(TOO_NESTED.into(), Position::NONE))),
        false => Ok(None),
    });
    engine.on_progress(move |steps| {
        if !deep::has_room() {
            return Some(TOO_DEEP.into());
        }
        if weight::step() % WEIGH_EVERY == 0 && weight::too_heavy(memory) {
            return Some(TOO_HEAVY.into());
        }
        if interrupt_requested() {
            any.store(true, Ordering::Relaxed);
            let mut noticed = noticed.lock().expect("no panic under this lock");
            if noticed.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Some(STOPPED.into());
            }
        } else if any.load(Ordering::Relaxed) {
            // A prompt has taken the interruption back.
            any.store(false, Ordering::Relaxed);
            *noticed.lock().expect("no panic under this lock") = None;
        }
        let late = || deadline.is_some_and(|deadline| Instant::now() > deadline);
        (steps % LOOK_EVERY == 0 && late()).then(|| OUT_OF_TIME.into())
    });
}
