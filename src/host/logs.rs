//! One log per piece of work: what its thread reports goes to a file of `logs/` as well. Primitives: with_log, last_logged.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rhai::{Dynamic, Engine, FnPtr, Map, NativeCallContext};

use super::context::Context;
use super::places;
use super::problem::{ScriptResult, thrown, told};
use super::reads;
use crate::error::{Error, Result};
use crate::outside;
use crate::progress::{Event, Progress};
use crate::results::check_name;
use crate::terminal::{lost, one_line, visible};

type Log = Arc<Mutex<Written>>;

/// A log at work; its file is gone when it could not be written to.
struct Written {
    file: Option<File>,
    path: PathBuf,
}

/// Bytes of the end of a log that hold its last line.
const TAIL: u64 = 64 << 10;

thread_local! {
    /// Where this thread's reports go as well.
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

pub fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn("with_log", move |ctx: NativeCallContext, name: &str, work: FnPtr| {
        with_log(&ctx, &c, name, &work)
    });
    let c = context.clone();
    engine.register_fn("last_logged", move |name: &str| thrown(last_logged(&c, name)));
}

fn path(context: &Context, name: &str) -> Result<PathBuf> {
    // As paths of logs are told.
    let name = name.strip_prefix("logs/").unwrap_or(name);
    let name = name.strip_suffix(".log").filter(|name| !name.is_empty()).unwrap_or(name);
    check_name(name)?;
    let path = context.root.join("logs").join(format!("{name}.log"));
    places::within(context, "logging", &path, "logs")?;
    Ok(path)
}

/// Calls `work` and adds everything it reports to `logs/<name>.log`.
fn with_log(ctx: &NativeCallContext, context: &Context, name: &str, work: &FnPtr) -> ScriptResult<Dynamic> {
    if let Some(stage) = context.plan() {
        stage.writes(&thrown(path(context, name))?);
        return work.call_within_context::<Dynamic>(ctx, ());
    }
    let open = || -> Result<Written> {
        let path = path(context, name)?;
        let opening = |e: std::io::Error| Error::io(format!("writing {}", path.display()), &e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(opening)?;
        }
        // Lines are added to the file of this name, not to one that a link names, and never to a pipe without a reader.
        let mut options = File::options();
        options.create(true).append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = Some(options.open(&path).map_err(opening)?);
        Ok(Written { file, path })
    };
    let log = Arc::new(Mutex::new(thrown(open())?));
    let before = LOG.replace(Some(log));
    line("begins");
    let outcome = work.call_within_context::<Dynamic>(ctx, ());
    match &outcome {
        Ok(_) => line("done"),
        Err(error) => line(&format!("failed: {}", told(error))),
    }
    LOG.set(before);
    outcome
}

/// The last line of a log: `#{ time, age (seconds), text }`, or () where there is none.
fn last_logged(context: &Context, name: &str) -> Result<Dynamic> {
    let path = path(context, name)?;
    // A log may be a link to anything: only what looks like one is told.
    let text = if reads::inside(context, &path) { tail(&path).unwrap_or_default() } else { String::new() };
    // What follows a line break within a report is indented.
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

/// The end of a log, more than its last line.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = outside::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(begin))?;
    let mut end = Vec::new();
    file.take(TAIL).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Adds a line to the log of this thread, if it has one.
pub fn line(text: &str) {
    LOG.with_borrow(|log| {
        if let Some(log) = log {
            write(log, text);
        }
    });
}

fn write(log: &Log, text: &str) {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    // A report may come from a machine: it cannot look like another one, nor order a terminal about.
    let text = visible(text).replace('\n', "\n  ");
    let mut log = log.lock().expect("no panic under this lock");
    let line = format!("{time} {text}\n");
    if let Some(Err(error)) = log.file.as_mut().map(|file| file.write_all(line.as_bytes())) {
        log.file = None;
        lost(log.path.display(), &error);
    }
}

/// Progress that is also written to the log of the thread that it is made in.
pub fn logged(progress: Arc<dyn Progress>) -> Arc<dyn Progress> {
    let log = LOG.with_borrow(Clone::clone);
    match log {
        Some(log) => Arc::new(Logged { progress, log, what: Mutex::default() }),
        None => progress,
    }
}

struct Logged {
    progress: Arc<dyn Progress>,
    log: Log,
    /// What goes on, and of how many steps.
    what: Mutex<(String, u64)>,
}

impl Progress for Logged {
    fn event(&self, event: Event) {
        let mut what = self.what.lock().expect("no panic under this lock");
        match &event {
            Event::Begin { what: name, total } => *what = (name.clone(), *total),
            Event::Step { done, .. } => write(&self.log, &format!("{}: {done}/{}", one_line(&what.0), what.1)),
            Event::Warning(text) | Event::Note(text) => write(&self.log, &one_line(text)),
            Event::Resumed { path, layer } => {
                write(&self.log, &format!("goes on after layer {layer}, from {}", one_line(path)))
            }
            Event::Checkpoint { .. } | Event::End => (),
        }
        drop(what);
        self.progress.event(event);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted()
    }
}
