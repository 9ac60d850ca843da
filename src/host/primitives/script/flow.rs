//! Primitives for control flow: parallel, sleep, is_main, report_failure.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, EvalAltResult, FLOAT, FnPtr, INT, Map, NativeCallContext, Position};

use crate::error::Error;
use crate::host::language::bounds;
use crate::host::language::deep;
use crate::host::language::growth::Size;
use crate::host::language::problem::{ScriptResult, as_map, failure_text, throw, thrown, thrown_value};
use crate::host::run::context::Context;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::options;
use crate::progress::{doze, interrupt_requested};
use crate::record::option::option_set;
use crate::record::option_types::{Float, Optional, Positive};

/// The largest delay between the starts of two items of `parallel`.
const MAX_STAGGER: Duration = Duration::from_secs(86_400);

option_set! {
    /// The options of parallel.
    pub(crate) struct ParallelOptions {
        /// items at the same time; 128 at most, those of a `parallel` inside another counted, of
        /// which there may be 8
        max: Optional<Positive> => "all";
        /// seconds between the starts of the first items
        stagger: Float = 0.0;
    }
}

pub(crate) const IS_MAIN: Declared<NoOptions> = Declared::new(
    "is_main",
    &["is_main() -> bool"],
    "Whether this script was started itself, not imported by another one.",
    r#"if is_main() { print("started itself"); }"#,
);

pub(crate) const PARALLEL: Declared<ParallelOptions> = Declared::new(
    "parallel",
    &["parallel(items: array, options?: map, work: function) -> array"],
    "Calls a function on every item, on threads. Gives, in order, #{ ok: true, value } or #{ ok: false, error } for each; \
     one failure leaves the others running. Writes to captured variables stay inside.",
    r#"let squares = parallel([3, 4], #{ max: 2 }, |x| x * x);
print(squares.map(|outcome| outcome.value));"#,
);

pub(crate) const REPORT_FAILURE: Declared<NoOptions> = Declared::new(
    "report_failure",
    &["report_failure(what: string, error: any) -> ()"],
    "Tells a failure at once and lets the run go on; it will end with exit code 3. Of a list of errors with one cause the \
     first is told.",
    r#"try { load_model("nowhere") } catch (error) { report_failure("nowhere", error); }"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(PARALLEL.name(), move |ctx: NativeCallContext, items: Array, f: FnPtr| {
        parallel(&ctx, &c, items, Map::new(), f)
    });
    let c = context.clone();
    engine.register_fn(PARALLEL.name(), move |ctx: NativeCallContext, items: Array, options: Map, f: FnPtr| {
        parallel(&ctx, &c, items, options, f)
    });
    let c = context.clone();
    engine.register_fn("sleep", move |seconds: INT| sleep(&c, seconds as f64));
    let c = context.clone();
    engine.register_fn("sleep", move |seconds: FLOAT| sleep(&c, seconds));
    let c = context.clone();
    engine.register_fn(IS_MAIN.name(), move |ctx: NativeCallContext| {
        ctx.call_source() == Some(c.script.display().to_string().as_str())
    });
    let c = context.clone();
    engine.register_fn(REPORT_FAILURE.name(), move |what: &str, error: Dynamic| {
        c.mark_failed();
        // Of several errors with one cause the first is shown.
        let errors = error.read_lock::<Array>().map(|list| list.to_vec()).unwrap_or_else(|| vec![error.clone()]);
        let told = format!("{what}: {}", errors.first().map(failure_text).unwrap_or_default());
        c.line(&format!("FAILED {told}"));
        if let Some(stage) = c.plan() {
            errors.iter().skip(1).for_each(|other| stage.is_told(&failure_text(other)));
            stage.goes_wrong(told);
        }
    });
}

/// Waits until the user interrupts. In dry runs and tests it does not wait.
fn sleep(context: &Context, seconds: f64) -> ScriptResult<()> {
    let time =
        thrown(options::seconds("sleep", seconds.max(0.0), options::MAX_TIME, "a script may wait for ten years"))?;
    match &context.stage {
        Some(stage) => stage.pass(time.as_secs_f64()),
        None => doze(time, interrupt_requested),
    }
    if interrupt_requested() { Err(throw(Error::interrupted())) } else { Ok(()) }
}

/// Calls `f` on every item, at most `max` at a time, with starts `stagger` seconds apart. Returns,
/// in order, one map per item: `#{ ok: true, value }` or `#{ ok: false, error }`. A failure does
/// not stop the others.
fn parallel(ctx: &NativeCallContext, context: &Context, items: Array, options: Map, f: FnPtr) -> ScriptResult<Array> {
    let ParallelOptions { max, stagger } = thrown(PARALLEL.read(options))?;
    let max = max.unwrap_or(items.len().max(1));
    thrown(options::seconds(
        "parallel: `stagger`",
        stagger,
        MAX_STAGGER,
        "seconds between the starts of the first items",
    ))?;
    let outer = deep::nested();
    if outer >= deep::MAX_NESTED {
        let message = format!("parallel: {} calls of it are inside each other already", deep::MAX_NESTED);
        return Err(throw(Error::bad_argument(message).hint("make one list of all items and call it once")));
    }
    // Plans and tests are deterministic: one item after the other.
    let (max, stagger) = if context.stage.is_some() { (1, 0.0) } else { (max, stagger) };
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Dynamic>>> = items.iter().map(|_| Mutex::new(None)).collect();
    // Each thread has copies of the captured variables.
    let threads = max.min(items.len()).clamp(1, deep::MAX_HELPERS);
    if Size::unshared(&f).memory().saturating_mul(threads as u64) > context.bounds.memory {
        return Err(Box::new(EvalAltResult::ErrorTerminated(bounds::TOO_HEAVY.into(), Position::NONE)));
    }
    // An error that ends the run, and not only the call for one item.
    let end = Mutex::new(None);
    let work = |f: &FnPtr| {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { return };
            let outcome = match interrupt_requested() {
                true => failure(as_map(&Error::interrupted()).into()),
                false => deep::inside(outer, || call(ctx, f, item.clone())).unwrap_or_else(|error| {
                    next.store(items.len(), Ordering::Relaxed);
                    let told = failure(thrown_value(&error));
                    *end.lock().expect("no panic under this lock") = Some(error);
                    told
                }),
            };
            *results[i].lock().expect("written once") = Some(outcome);
        }
    };
    let helped = std::thread::scope(|scope| {
        let start = |helper: usize| {
            let (work, f) = (&work, unshared(&f));
            deep::help(scope, move || {
                doze(Duration::try_from_secs_f64(stagger * helper as f64).unwrap_or_default(), interrupt_requested);
                work(&f);
                context.used.rest();
            })
        };
        (0..max.min(items.len())).take_while(|helper| start(*helper)).count()
    });
    // If no further thread can be started, this one does all the work.
    if helped == 0 {
        work(&unshared(&f));
    }
    if let Some(error) = end.into_inner().expect("no panic under this lock") {
        return Err(error);
    }
    let outcome = |result: Mutex<Option<Dynamic>>| result.into_inner().ok().flatten().unwrap_or(Dynamic::UNIT);
    let outcomes: Array = results.into_iter().map(outcome).collect();
    if interrupt_requested() {
        // A script that catches this can still report finished items.
        let mut error = as_map(&Error::interrupted());
        error.insert("outcomes".into(), outcomes.into());
        return Err(Box::new(EvalAltResult::ErrorRuntime(error.into(), Position::NONE)));
    }
    Ok(outcomes)
}

/// Captured variables are shared by default, and one thread would lock them during a whole
/// primitive. Each thread gets copies, so that writes to captured variables stay inside the
/// closure.
fn unshared(f: &FnPtr) -> FnPtr {
    let mut f = f.clone();
    for value in f.iter_curry_mut() {
        *value = value.flatten_clone();
    }
    f
}

/// The result of one item.
///
/// # Errors
/// An error that ends the whole run.
fn call(ctx: &NativeCallContext, f: &FnPtr, item: Dynamic) -> ScriptResult<Dynamic> {
    let call = || f.call_within_context::<Dynamic>(ctx, (item,));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    Ok(match outcome {
        Ok(Err(error)) if bounds::ends_the_run(&error) && !interrupt_requested() => return Err(error),
        Ok(Ok(value)) => {
            let mut map = Map::new();
            map.insert("ok".into(), true.into());
            map.insert("value".into(), value);
            map.into()
        }
        Ok(Err(error)) => failure(thrown_value(&error)),
        Err(_) => {
            let error = Error::internal("a primitive panicked");
            failure(as_map(&error).into())
        }
    })
}

fn failure(error: Dynamic) -> Dynamic {
    let mut map = Map::new();
    map.insert("ok".into(), false.into());
    map.insert("error".into(), error);
    map.into()
}
