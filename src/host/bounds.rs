//! What a script may use up: steps, time, depth, and the size of its values. docs/security.md lists them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhai::{Dynamic, Engine};

use super::context::Bounds;
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
/// What ends a script whose time is over.
pub const OUT_OF_TIME: &str = "out of time";
/// Steps between two looks at the time.
const LOOK_EVERY: u64 = 1024;

/// Bounds of values and of nesting.
pub fn sizes(engine: &mut Engine) {
    engine.set_max_call_levels(MAX_CALL_LEVELS).set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH);
    engine.set_max_string_size(MAX_STRING).set_max_array_size(MAX_ARRAY).set_max_map_size(MAX_MAP);
}

/// Bounds of steps and time, and Ctrl-C.
pub fn apply(engine: &mut Engine, bounds: &Bounds) {
    engine.set_max_operations(bounds.operations);
    let deadline = bounds.time.map(|time| Instant::now() + time);
    let noticed = Mutex::new(None::<Instant>);
    let any = AtomicBool::new(false);
    engine.on_progress(move |steps| {
        if interrupt_requested() {
            any.store(true, Ordering::Relaxed);
            let mut noticed = noticed.lock().expect("no panic under this lock");
            if noticed.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Some(Dynamic::from("interrupted"));
            }
        } else if any.load(Ordering::Relaxed) {
            // A prompt has taken the interruption back.
            any.store(false, Ordering::Relaxed);
            *noticed.lock().expect("no panic under this lock") = None;
        }
        let late = || deadline.is_some_and(|deadline| Instant::now() > deadline);
        (steps % LOOK_EVERY == 0 && late()).then(|| Dynamic::from(OUT_OF_TIME))
    });
}
