//! Logs: the reports of a thread are also written to a file in `logs/`. Primitives: with_log,
//! last_logged.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rhai::{Dynamic, Engine, FnPtr, Map, NativeCallContext};

use crate::error::Result;
use crate::host::language::problem::{ScriptResult, thrown, told};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::run::reads;
use crate::host::run::thread_log;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::outside;
use crate::results::check_name;

/// Number of bytes at the end of a log that contain its last line.
const TAIL: u64 = 64 << 10;

pub(crate) const WITH_LOG: Declared<NoOptions> = Declared::new(
    "with_log",
    &["with_log(name: string, work: function) -> any"],
    "Calls a function and adds everything it reports to logs/<name>.log.",
    r#"let answer = with_log("first", || { log("half way"); 42 });
print(answer);"#,
);

pub(crate) const LAST_LOGGED: Declared<NoOptions> = Declared::new(
    "last_logged",
    &["last_logged(name: string) -> map"],
    "The last line of a log: time, age in seconds and text; () where there is none.",
    r#"with_log("first", || 42);
print(last_logged("first").text);"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(WITH_LOG.name(), move |ctx: NativeCallContext, name: &str, work: FnPtr| {
        with_log(&ctx, &c, name, &work)
    });
    let c = context.clone();
    engine.register_fn(LAST_LOGGED.name(), move |name: &str| thrown(last_logged(&c, name)));
}

fn path(context: &Context, name: &str) -> Result<PathBuf> {
    // Paths of logs are shown with this prefix.
    let name = name.strip_prefix("logs/").unwrap_or(name);
    let name = name.strip_suffix(".log").filter(|name| !name.is_empty()).unwrap_or(name);
    check_name(name)?;
    let path = context.root.join("logs").join(format!("{name}.log"));
    places::within(context, "logging", &path, "logs")?;
    Ok(path)
}

/// Calls `work` and appends its reports to `logs/<name>.log`.
fn with_log(ctx: &NativeCallContext, context: &Context, name: &str, work: &FnPtr) -> ScriptResult<Dynamic> {
    if let Some(stage) = context.plan() {
        stage.writes(&thrown(path(context, name))?);
        return work.call_within_context::<Dynamic>(ctx, ());
    }
    let log = thrown(path(context, name).and_then(thread_log::open))?;
    let before = thread_log::send_to(Some(log));
    thread_log::line("begins");
    let outcome = work.call_within_context::<Dynamic>(ctx, ());
    match &outcome {
        Ok(_) => thread_log::line("done"),
        Err(error) => thread_log::line(&format!("failed: {}", told(error))),
    }
    thread_log::send_to(before);
    outcome
}

/// The last line of a log: `#{ time, age (seconds), text }`, or () if there is none.
fn last_logged(context: &Context, name: &str) -> Result<Dynamic> {
    let path = path(context, name)?;
    // A log may be a link to any file. Only lines in the form of a log are returned.
    let text = if reads::inside(context, &path) { tail(&path).unwrap_or_default() } else { String::new() };
    // Continuation lines of a report are indented.
    let last = text.lines().rev().find(|line| !line.starts_with(' ')).and_then(|line| line.split_once(' '));
    let Some((time, text)) = last.filter(|(time, _)| humantime::parse_rfc3339_weak(time).is_ok()) else {
        return Ok(Dynamic::UNIT);
    };
    let since = humantime::parse_rfc3339_weak(time).ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
    let mut map = Map::new();
    map.insert("age".into(), since.as_secs_f64().into());
    map.insert("time".into(), time.into());
    map.insert("text".into(), text.into());
    Ok(map.into())
}

/// The end of a log, which is more than its last line.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = outside::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(begin))?;
    let mut end = Vec::new();
    file.take(TAIL).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
