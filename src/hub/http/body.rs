//! The body of an answer, chunk by chunk. An answer that stalls, or is too slow to end in
//! reasonable time, is aborted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use super::attempt::{Attempt, Trouble};

/// The smallest average rate in bytes per second over a window. Even a slow link that two dozen
/// requests share is faster.
const LEAST_RATE: f64 = 1024.0;
/// Length of the window as a multiple of the time-out of a silent connection: a minute by default.
const WINDOW: u32 = 6;

pub(crate) struct Body {
    response: Response,
    /// The longest time without a byte.
    stall: Duration,
    since: Instant,
    bytes: u64,
}

impl Body {
    pub(crate) fn new(response: Response, stall: Duration) -> Self {
        Self { response, stall, since: Instant::now(), bytes: 0 }
    }

    /// The next bytes, as many as are available; None at the end.
    pub(crate) async fn chunk(&mut self) -> Attempt<Option<Bytes>> {
        let passing = |problem| Trouble::Passing { problem, after: None };
        let chunk = match timeout(self.stall, self.response.chunk()).await {
            Err(_) => return Err(passing(format!("no byte for {} s", self.stall.as_secs_f32()))),
            Ok(Err(_)) => return Err(passing("the connection broke off".to_string())),
            Ok(Ok(chunk)) => chunk,
        };
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let elapsed = self.since.elapsed();
        if elapsed >= self.stall * WINDOW {
            let rate = self.bytes as f64 / elapsed.as_secs_f64();
            if rate < LEAST_RATE && chunk.is_some() {
                return Err(passing(format!("no more than {rate:.0} bytes come in a second")));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(chunk)
    }
}
