//! The usage of a run's limits, and the checks between the steps of a script that end it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rhai::Engine;

use super::bounds::{Bounds, OUT_OF_TIME, STOPPED, TOO_DEEP, TOO_HEAVY, TOO_MANY_STEPS};
use super::{deep, weight};
use crate::progress::interrupt_requested;

/// After Ctrl-C a script may run so long: enough to catch the interruption of a primitive and say
/// what is done, also where other programs leave it little of the machine.
const GRACE: Duration = Duration::from_secs(2);
/// Steps of a thread between two looks at the time and at the steps of all threads.
const LOOK_EVERY: u64 = 256;
/// Stack size in bytes of the thread that watches memory.
const WATCH_STACK: usize = 128 << 10;
/// Steps between two checks of memory.
const WEIGH_EVERY: u64 = 16;

/// The usage of a run over all its threads. An exceeded limit stays exceeded: a script that catches
/// the error ends at its next step.
#[derive(Default)]
pub struct Used {
    steps: AtomicU64,
    too_many: AtomicBool,
    late: AtomicBool,
}

impl Used {
    /// Resets the usage for the next input of a prompt.
    pub fn again(&self) {
        self.steps.store(0, Ordering::Relaxed);
        self.too_many.store(false, Ordering::Relaxed);
        self.late.store(false, Ordering::Relaxed);
        weight::again();
    }

    /// Counts the steps of a thread since its last check, at its end.
    pub fn rest(&self) {
        self.steps.fetch_add(weight::steps() % LOOK_EVERY, Ordering::Relaxed);
    }

    fn over(&self) -> Option<&'static str> {
        if self.too_many.load(Ordering::Relaxed) {
            return Some(TOO_MANY_STEPS);
        }
        self.late.load(Ordering::Relaxed).then_some(OUT_OF_TIME)
    }
}

/// Holds a run to its bounds of steps, time, stack and memory, and to Ctrl-C.
pub(crate) fn enforce(engine: &mut Engine, bounds: &Bounds, used: &Arc<Used>) {
    engine.set_max_operations(bounds.operations);
    let deadline = bounds.time.and_then(|time| Instant::now().checked_add(time));
    let noticed = Mutex::new(None::<Instant>);
    let any = AtomicBool::new(false);
    let operations = bounds.operations;
    weight::begin(bounds.memory);
    let watched = Arc::downgrade(used);
    let watch = move || weight::watch(|| watched.strong_count() == 0);
    // Without this thread there are still the checks between steps.
    let _ = std::thread::Builder::new().name("memory".to_string()).stack_size(WATCH_STACK).spawn(watch);
    #[allow(deprecated)] // the hook is marked volatile, not deprecated
    engine.on_var(|_, _, context| weight::bounded(&context).map(|()| None));
    let used = used.clone();
    engine.on_progress(move |_| {
        if !deep::has_room() {
            return Some(TOO_DEEP.into());
        }
        if let Some(why) = used.over() {
            return Some(why.into());
        }
        let steps = weight::step();
        if (steps.is_multiple_of(WEIGH_EVERY) || weight::is_suspect()) && weight::too_heavy() {
            return Some(TOO_HEAVY.into());
        }
        if interrupt_requested() {
            any.store(true, Ordering::Relaxed);
            let mut noticed = noticed.lock().expect("no panic under this lock");
            if noticed.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Some(STOPPED.into());
            }
        } else if any.load(Ordering::Relaxed) {
            // A prompt has cleared the interruption.
            any.store(false, Ordering::Relaxed);
            *noticed.lock().expect("no panic under this lock") = None;
        }
        if (steps + 1).is_multiple_of(LOOK_EVERY) {
            let all = used.steps.fetch_add(LOOK_EVERY, Ordering::Relaxed) + LOOK_EVERY;
            if operations > 0 && all > operations {
                used.too_many.store(true, Ordering::Relaxed);
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                used.late.store(true, Ordering::Relaxed);
            }
        }
        used.over().map(Into::into)
    });
}
