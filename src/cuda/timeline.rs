//! A profile of the GPU's work over time. If `OUTLIER_TIMELINE=FILE` is set, events are recorded on
//! the stream before and after everything that is put on it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::driver::Driver;
use super::driver_context::{Current, Stream};
use super::staging::Event;
use crate::error::{Error, Result};

/// The environment variable with the name of the file. Events cost a few microseconds each, so
/// there are none without it.
pub(super) const FILE: &str = "OUTLIER_TIMELINE";

/// The first CUDA version whose driver supports the timing of events as it is used here.
const OLDEST_DRIVER: (u32, u32) = (12, 8);

/// The timed work of a GPU since its context was opened.
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

/// The amount of work.
#[derive(Clone, Copy)]
pub(super) enum Amount {
    Uncounted,
    Bytes(usize),
    /// Number of multiplications and additions.
    Operations(f64),
}

impl Timeline {
    /// Starts a timeline for the current context, or returns None if none was requested.
    pub(super) fn if_requested(current: &Current) -> Result<Option<Self>> {
        let Some(path) = std::env::var_os(FILE).filter(|path| !path.is_empty()) else { return Ok(None) };
        let (major, minor) = Driver::open().map_or((0, 0), |driver| driver.version);
        if (major, minor) < OLDEST_DRIVER {
            return Err(Error::unsupported(format!("{FILE}: the driver is for CUDA {major}.{minor}"))
                .hint("events can be timed with a driver for CUDA 12.8 or newer; unset it to run without a timeline"));
        }
        let start = Event::timed(current)?;
        start.record(current, Stream::Compute)?;
        Ok(Some(Self { path: path.into(), start, spans: Mutex::new(Vec::new()) }))
    }

    /// The file to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `work` on a stream of the current context, between two events.
    pub(super) fn timed(
        &self,
        current: &Current,
        stream: Stream,
        what: &str,
        amount: Amount,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // One thread at a time, so that only this work lies between the two events.
        let mut spans = self.spans.lock().expect("no panic under this lock");
        let (begin, end) = (Event::timed(current)?, Event::timed(current)?);
        begin.record(current, stream)?;
        work()?;
        end.record(current, stream)?;
        spans.push(Span { stream, what: what.to_string(), amount, begin, end });
        Ok(())
    }

    /// Takes the spans recorded so far, as events of a trace with times in microseconds. Both
    /// streams must be idle.
    pub(super) fn events(&self, gpu: usize) -> Result<Vec<Value>> {
        let spans = std::mem::take(&mut *self.spans.lock().expect("no panic under this lock"));
        let event = |span: Span| {
            let Span { stream, what, amount, begin, end } = span;
            let args = match amount {
                Amount::Uncounted => json!({}),
                Amount::Bytes(bytes) => json!({ "bytes": bytes }),
                Amount::Operations(operations) => json!({ "operations": operations }),
            };
            let (at, took) = (self.start.elapsed_us(&begin)?, begin.elapsed_us(&end)?);
            let thread = format!("{stream:?}").to_lowercase();
            Ok(json!({ "name": what, "ph": "X", "pid": gpu, "tid": thread, "ts": at, "dur": took, "args": args }))
        };
        spans.into_iter().map(event).collect()
    }
}
