//! When a GPU did what, for whoever wants to know where the time goes: `OUTLIER_TIMELINE=FILE` marks the stream before and after
//! everything that is put on it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::driver::Driver;
use super::driver_context::{Current, Stream};
use super::staging::Event;
use crate::error::{Error, Result};

/// Names the file. Marks cost a few microseconds each, so without it there are none.
pub(super) const FILE: &str = "OUTLIER_TIMELINE";

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
    /// None unless somebody wants one of the current context.
    pub(super) fn wanted(current: &Current) -> Result<Option<Self>> {
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

    /// The file that is wanted.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `work` on a stream of the current context, between marks.
    pub(super) fn timed(
        &self,
        current: &Current,
        stream: Stream,
        what: &str,
        amount: Amount,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // One at a time, so that what stands between two marks is this work alone.
        let mut spans = self.spans.lock().expect("no panic under this lock");
        let (begin, end) = (Event::timed(current)?, Event::timed(current)?);
        begin.record(current, stream)?;
        work()?;
        end.record(current, stream)?;
        spans.push(Span { stream, what: what.to_string(), amount, begin, end });
        Ok(())
    }

    /// Takes what was done until now, as events of a trace; times are in microseconds. The streams have come to their ends.
    pub(super) fn events(&self, gpu: usize) -> Result<Vec<Value>> {
        let spans = std::mem::take(&mut *self.spans.lock().expect("no panic under this lock"));
        let event = |span: Span| {
            let Span { stream, what, amount, begin, end } = span;
            let args = match amount {
                Amount::Uncounted => json!({}),
                Amount::Bytes(bytes) => json!({ "bytes": bytes }),
                Amount::Operations(operations) => json!({ "operations": operations }),
            };
            let (at, took) = (self.start.until(&begin)?, begin.until(&end)?);
            let thread = format!("{stream:?}").to_lowercase();
            Ok(json!({ "name": what, "ph": "X", "pid": gpu, "tid": thread, "ts": at, "dur": took, "args": args }))
        };
        spans.into_iter().map(event).collect()
    }
}
