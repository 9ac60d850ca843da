//! When a GPU did what, for whoever wants to know where the time goes: `OUTLIER_TIMELINE=FILE` marks the stream before and after
//! everything that is put on it, and writes all of it as a trace that browsers show (chrome://tracing, ui.perfetto.dev).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::context::{Context, Stream};
use super::staging::Event;
use crate::error::{Error, Result};

/// Names the file. Marks cost a few microseconds each, so without it there are none.
const FILE: &str = "OUTLIER_TIMELINE";

/// The first CUDA version whose driver times events in the way that is used here.
const OLDEST_DRIVER: (u32, u32) = (12, 8);

/// What a GPU has been given to do since its context was opened.
pub(super) struct Timeline {
    path: PathBuf,
    start: Event,
    spans: Mutex<Vec<Span>>,
}

struct Span {
    stream: Stream,
    what: String,
    amount: Amount,
    begin: Event,
    end: Event,
}

/// How much is done.
#[derive(Clone, Copy)]
pub(super) enum Amount {
    Uncounted,
    Bytes(usize),
    /// Multiplications and additions.
    Operations(f64),
}

impl Timeline {
    /// None unless somebody wants one. In the current context.
    pub(super) fn wanted(compute: cudarc::driver::sys::CUstream) -> Result<Option<Self>> {
        let Some(path) = std::env::var_os(FILE).filter(|path| !path.is_empty()) else { return Ok(None) };
        let (major, minor) = super::Driver::open().map_or((0, 0), |driver| driver.version);
        if (major, minor) < OLDEST_DRIVER {
            return Err(Error::unsupported(format!("{FILE}: the driver is for CUDA {major}.{minor}"))
                .hint("events can be timed with a driver for CUDA 12.8 or newer; unset it to run without a timeline"));
        }
        let start = Event::timed()?;
        start.record(compute)?;
        Ok(Some(Self { path: path.into(), start, spans: Mutex::new(Vec::new()) }))
    }
}

impl Context {
    /// Puts `work` on a stream, between marks where somebody wants to know when it was done.
    pub(super) fn timed(
        &self,
        stream: Stream,
        what: &str,
        amount: Amount,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(timeline) = &self.timeline else { return work() };
        // One at a time, so that what stands between two marks is this work alone.
        let mut spans = timeline.spans.lock().expect("no panic under this lock");
        let (begin, end) = (Event::timed()?, Event::timed()?);
        begin.record(self.stream(stream))?;
        work()?;
        end.record(self.stream(stream))?;
        spans.push(Span { stream, what: what.to_string(), amount, begin, end });
        Ok(())
    }

    /// Marks where layer `layer` begins.
    pub fn begins(&self, layer: usize) -> Result<()> {
        if self.timeline.is_none() {
            return Ok(());
        }
        self.enter()?;
        self.timed(Stream::Compute, &format!("layer {layer}"), Amount::Uncounted, || Ok(()))
    }

    /// Takes what was done until now, as events of a trace; times are in microseconds.
    fn events(&self, timeline: &Timeline, gpu: usize) -> Result<Vec<Value>> {
        self.enter()?;
        self.finish()?;
        let spans = std::mem::take(&mut *timeline.spans.lock().expect("no panic under this lock"));
        let event = |span: Span| {
            let Span { stream, what, amount, begin, end } = span;
            let args = match amount {
                Amount::Uncounted => json!({}),
                Amount::Bytes(bytes) => json!({ "bytes": bytes }),
                Amount::Operations(operations) => json!({ "operations": operations }),
            };
            let (at, took) = (timeline.start.until(&begin)?, begin.until(&end)?);
            let thread = format!("{stream:?}").to_lowercase();
            Ok(json!({ "name": what, "ph": "X", "pid": gpu, "tid": thread, "ts": at, "dur": took, "args": args }))
        };
        spans.into_iter().map(event).collect()
    }
}

/// Writes the timeline of these GPUs, if somebody wants it; a later one replaces it.
pub fn write_timeline(contexts: &[&Arc<Context>]) -> Result<()> {
    let mut all = Vec::new();
    let mut to: Option<&Path> = None;
    for (gpu, context) in contexts.iter().enumerate() {
        if let Some(timeline) = &context.timeline {
            all.extend(context.events(timeline, gpu)?);
            to = Some(&timeline.path);
        }
    }
    let Some(path) = to else { return Ok(()) };
    let writing = |e: std::io::Error| {
        Error::io(format!("writing {}", path.display()), &e).hint(format!("{FILE} names a file that can be written"))
    };
    std::fs::write(path, json!({ "traceEvents": all }).to_string()).map_err(writing)
}
