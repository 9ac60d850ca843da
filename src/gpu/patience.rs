//! Time limits of waits for a provider of machines.

use std::time::Duration;

/// Time limits and intervals.
#[derive(Clone, Debug)]
pub struct Patience {
    pub poll: Duration,
    /// From creation until the provider reports that the machine runs.
    pub start: Duration,
    /// From then until it can be reached.
    pub reach: Duration,
    /// A machine whose creation is uncertain appears in the listing within this time, or never.
    pub appear: Duration,
    /// A terminated machine leaves the listing within this time.
    pub end: Duration,
    /// The same once the user has asked to stop.
    pub hurry: Duration,
    /// Number of machines of one kind that are tried if they do not start.
    pub hosts: usize,
}

impl Default for Patience {
    fn default() -> Self {
        // Typical limits for RunPod: secure machines take 1 to 4 minutes, large images longer. A
        // query every 5 s is far below the rate limit.
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            poll: Duration::from_secs(5),
            start: minutes(10),
            reach: minutes(3),
            appear: Duration::from_secs(20),
            end: minutes(5),
            hurry: minutes(5),
            hosts: 2,
        }
    }
}

impl Patience {
    /// `OUTLIER_POLL_SECONDS` sets the polling interval for faster services, and scales the time
    /// limits.
    pub fn from_environment() -> Self {
        let default = Self::default();
        let Some(poll) = std::env::var("OUTLIER_POLL_SECONDS")
            .ok()
            .and_then(|text| text.parse::<f64>().ok().filter(|poll| poll.is_finite()))
        else {
            return default;
        };
        let pace = poll.clamp(0.01, 60.0) / default.poll.as_secs_f64();
        let scaled = |time: Duration| time.mul_f64(pace);
        Self {
            poll: scaled(default.poll),
            // Limits that do not depend on the service's speed have a minimum.
            start: scaled(default.start).max(Duration::from_secs(5)),
            reach: scaled(default.reach).max(Duration::from_secs(30)),
            appear: scaled(default.appear),
            hosts: default.hosts,
            end: scaled(default.end).max(Duration::from_secs(15)),
            hurry: scaled(default.hurry).max(Duration::from_secs(15)),
        }
    }
}
