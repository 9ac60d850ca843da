//! Writes the timelines of GPUs as a trace for chrome://tracing and ui.perfetto.dev.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::context::Context;
use super::timeline::FILE;
use crate::error::{Error, Result};

/// Writes the timeline of these GPUs if one was requested, replacing an earlier one.
pub fn write_timeline(contexts: &[&Arc<Context>]) -> Result<()> {
    let mut all = Vec::new();
    let mut to: Option<&Path> = None;
    for (gpu, context) in contexts.iter().enumerate() {
        if let Some(timeline) = context.timeline() {
            context.enter()?.finish()?;
            all.extend(timeline.events(gpu)?);
            to = Some(timeline.path());
        }
    }
    let Some(path) = to else { return Ok(()) };
    let writing = |e: std::io::Error| {
        Error::io(format!("writing {}", path.display()), &e).or_hint(format!("{FILE} names a file that can be written"))
    };
    std::fs::write(path, json!({ "traceEvents": all }).to_string()).map_err(writing)
}
