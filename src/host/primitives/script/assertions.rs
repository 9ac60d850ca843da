//! Primitives of tests: assertions with readable differences, and the simulated environment of a
//! test.

use std::sync::Arc;

use rhai::{Dynamic, Engine, FnPtr, Map, NativeCallContext};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::host::language::bounds;
use crate::host::language::json::{to_dynamic, to_json};
use crate::host::language::problem::{ScriptResult, as_map, failure_text, throw, thrown, thrown_value};
use crate::host::run::context::Context;
use crate::host::run::stage::Stage;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::options::number;
use crate::suggest;
use crate::words::counted;

const DEFAULT_TOLERANCE: f64 = 1e-6;
/// The largest number of differences that are shown.
const MOST_DIFFERENCES: usize = 10;

pub(crate) const ASSERT: Declared<NoOptions> = Declared::new(
    "assert",
    &["assert(condition: bool) -> ()", "assert(condition: bool, message: string) -> ()"],
    "Fails unless the condition holds.",
    r#"assert(1 + 1 == 2, "arithmetic");"#,
);

pub(crate) const ASSERT_EQ: Declared<NoOptions> = Declared::new(
    "assert_eq",
    &["assert_eq(actual: any, expected: any) -> ()"],
    "Fails unless both are equal, and shows where they differ.",
    r#"assert_eq(#{ a: [1, 2] }, #{ a: [1, 2] });"#,
);

pub(crate) const ASSERT_CLOSE: Declared<NoOptions> = Declared::new(
    "assert_close",
    &[
        "assert_close(actual: number, expected: number) -> ()",
        "assert_close(actual: number, expected: number, tolerance: number) -> ()",
    ],
    "Fails unless the numbers differ by at most the tolerance, 1e-6 where none is given.",
    r#"assert_close(0.1 + 0.2, 0.3);"#,
);

pub(crate) const ASSERT_THROWS: Declared<NoOptions> = Declared::new(
    "assert_throws",
    &["assert_throws(work: function) -> any", "assert_throws(kind: string, work: function) -> any"],
    "Calls a function that must throw, an error of this kind where one is given; gives what was thrown.",
    r#"let error = assert_throws("not_found", || load_model("nowhere"));
print(error.hint);"#,
);

pub(crate) const FAKE_FAILURE: Declared<NoOptions> = Declared::new(
    "fake_failure",
    &["fake_failure(primitive: string, kind: string) -> ()"],
    "In a test: the next call to this primitive throws an error of this kind.",
    r#"fake_failure("provision_gpu", "no_capacity");
assert_throws("no_capacity", || provision_gpu(#{ provider: "runpod" }));"#,
);

pub(crate) const FAKE_MACHINES: Declared<NoOptions> = Declared::new(
    "fake_machines",
    &["fake_machines() -> array"],
    "In a test: all machines so far, each with provider, gpu, price, hours, cost, task and alive.",
    r#"let gpu = provision_gpu(#{ provider: "runpod", gpu: "A100" });
assert(fake_machines()[0].alive);
gpu.terminate();
assert(!fake_machines()[0].alive);"#,
);

pub(crate) const FAKE_CLOCK: Declared<NoOptions> = Declared::new(
    "fake_clock",
    &["fake_clock() -> float"],
    "In a test: seconds that have passed. `sleep` lets time pass without waiting.",
    r#"sleep(3600);
assert_eq(fake_clock(), 3600.0);"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    engine.register_fn(ASSERT.name(), |condition: bool| assert(condition, "the condition does not hold"));
    engine.register_fn(ASSERT.name(), |condition: bool, message: &str| assert(condition, message));
    engine.register_fn(ASSERT_EQ.name(), |actual: Dynamic, expected: Dynamic| assert_eq(&actual, &expected));
    engine.register_fn(ASSERT_CLOSE.name(), |actual: Dynamic, expected: Dynamic| {
        assert_close(&actual, &expected, &DEFAULT_TOLERANCE.into())
    });
    engine.register_fn(ASSERT_CLOSE.name(), |actual: Dynamic, expected: Dynamic, tolerance: Dynamic| {
        assert_close(&actual, &expected, &tolerance)
    });
    engine.register_fn(ASSERT_THROWS.name(), |ctx: NativeCallContext, work: FnPtr| assert_throws(&ctx, None, &work));
    engine.register_fn(ASSERT_THROWS.name(), |ctx: NativeCallContext, kind: &str, work: FnPtr| {
        assert_throws(&ctx, Some(kind), &work)
    });
    let c = context.clone();
    engine
        .register_fn(FAKE_FAILURE.name(), move |primitive: &str, kind: &str| thrown(fake_failure(&c, primitive, kind)));
    let c = context.clone();
    engine.register_fn(FAKE_MACHINES.name(), move || {
        thrown(on_stage(&c, "fake_machines"))
            .map(|stage| -> rhai::Array { stage.machines().iter().map(|part| to_dynamic(&stage.json(part))).collect() })
    });
    let c = context.clone();
    engine.register_fn(FAKE_CLOCK.name(), move || thrown(on_stage(&c, "fake_clock")).map(|stage| stage.clock()));
}

fn on_stage<'a>(context: &'a Context, primitive: &str) -> Result<&'a Stage> {
    let stage = context.stage.as_deref().filter(|stage| !stage.is_plan());
    stage.ok_or_else(|| {
        Error::bad_argument(format!("{primitive}: only tests have a fake world"))
            .hint("put it into a function test_… of a file *_test.rhai and run `outlier test`")
    })
}

fn fake_failure(context: &Context, primitive: &str, kind: &str) -> Result<()> {
    let stage = on_stage(context, "fake_failure")?;
    if !CAN_FAIL.contains(&primitive) {
        return Err(Error::bad_argument(format!("fake_failure: `{primitive}` cannot be made to fail"))
            .hint(suggest::hint(primitive, CAN_FAIL.iter().copied())));
    }
    let Some(known) = Kind::from_name(kind) else {
        return Err(Error::bad_argument(format!("fake_failure: no kind of error is called \"{kind}\""))
            .hint(suggest::hint(kind, Kind::names())));
    };
    stage.fail(primitive, known);
    Ok(())
}

/// Primitives that the stage can let fail.
const CAN_FAIL: &[&str] =
    &["provision_gpu", "load_model", "extract_layernorms", "sync", "upload", "download", "run_command", "terminate"];

/// The error of an assertion, as scripts catch it.
fn failed(message: String) -> Box<rhai::EvalAltResult> {
    let mut map = as_map(&Error::bad_argument(message));
    map.insert("kind".into(), "assertion".into());
    Box::new(rhai::EvalAltResult::ErrorRuntime(map.into(), rhai::Position::NONE))
}

fn assert(condition: bool, message: &str) -> ScriptResult<()> {
    if condition { Ok(()) } else { Err(failed(format!("assertion failed: {message}"))) }
}

fn assert_eq(actual: &Dynamic, expected: &Dynamic) -> ScriptResult<()> {
    let (left, right) = (comparable(actual), comparable(expected));
    let mut differences = Vec::new();
    compare("", &left, &right, &mut differences);
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(MOST_DIFFERENCES);
    differences.truncate(MOST_DIFFERENCES);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(failed(format!("assert_eq failed:\n    {}", differences.join("\n    "))))
}

/// A value as JSON. Values that JSON does not have become text.
fn comparable(value: &Dynamic) -> Value {
    match to_json(value) {
        Ok(json) => json,
        Err(_) => Value::String(format!("{value:?}")),
    }
}

/// Adds lines such as `features[0].feature_dim: is 4, expected 5`.
fn compare(path: &str, actual: &Value, expected: &Value, differences: &mut Vec<String>) {
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    match (actual, expected) {
        (Value::Object(left), Value::Object(right)) => {
            let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            for (key, value) in left {
                match right.get(key) {
                    Some(other) => compare(&below(key), value, other, differences),
                    None => differences.push(format!("{}: is {value}, expected nothing", below(key))),
                }
            }
            for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                differences.push(format!("{}: is missing, expected {value}", below(key)));
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                differences.push(format!("{place}has {}, expected {}", counted(left.len(), "item"), right.len()));
            }
            for (i, value) in left.iter().enumerate() {
                match right.get(i) {
                    Some(other) => compare(&format!("{path}[{i}]"), value, other, differences),
                    None => differences.push(format!("{path}[{i}]: is {value}, expected nothing")),
                }
            }
            for (i, value) in right.iter().enumerate().skip(left.len()) {
                differences.push(format!("{path}[{i}]: is missing, expected {value}"));
            }
        }
        // 6 and 6.0 are equal.
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => (),
        _ if actual == expected => (),
        _ => differences.push(format!("{place}is {actual}, expected {expected}")),
    }
}

fn assert_close(actual: &Dynamic, expected: &Dynamic, tolerance: &Dynamic) -> ScriptResult<()> {
    let read = |name: &str, value: &Dynamic| {
        let wrong = || throw(Error::bad_argument(format!("assert_close: {name} is {value}, expected a number")));
        number(value).ok_or_else(wrong)
    };
    let (left, right) = (read("the first value", actual)?, read("the second value", expected)?);
    let most = read("the tolerance", tolerance)?;
    let apart = (left - right).abs();
    // NaN is close to nothing.
    if apart <= most {
        return Ok(());
    }
    Err(failed(format!(
        "assert_close failed: is {left}, expected {right}; they are {apart:e} apart, allowed are {most:e}"
    )))
}

fn assert_throws(ctx: &NativeCallContext, kind: Option<&str>, work: &FnPtr) -> ScriptResult<Dynamic> {
    let error = match work.call_within_context::<Dynamic>(ctx, ()) {
        Ok(value) => return Err(failed(format!("assert_throws failed: nothing was thrown, the value is {value}"))),
        Err(error) if bounds::ends_the_run(&error) => return Err(error),
        Err(error) => thrown_value(&error),
    };
    let Some(expected) = kind else { return Ok(error) };
    let actual = error.read_lock::<Map>().and_then(|map| map.get("kind").map(Dynamic::to_string));
    match actual.as_deref() == Some(expected) {
        true => Ok(error),
        false => Err(failed(format!(
            "assert_throws failed: an error of kind {}, expected {expected}\n    it says: {}",
            actual.unwrap_or_else(|| "none".to_string()),
            failure_text(&error),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn differences_name_their_place() {
        let mut found = Vec::new();
        let (actual, expected) =
            (json!({"a": [1, {"b": 2}], "c": 1.0}), json!({"a": [1, {"b": 3}, 4], "c": 1, "d": 0}));
        super::compare("", &actual, &expected, &mut found);
        let lines = [
            "a: has 2 items, expected 3",
            "a[1].b: is 2, expected 3",
            "a[2]: is missing, expected 4",
            "d: is missing, expected 0",
        ];
        assert_eq!(found, lines);
    }
}
