//! How long the wait for a provider of machines may take.

use std::time::Duration;

/// How long is waited for what.
#[derive(Clone, Debug)]
pub struct Patience {
    pub poll: Duration,
    /// From creation until the provider says that it runs.
    pub start: Duration,
    /// From then until it can be reached.
    pub reach: Duration,
    /// A machine whose creation was left open appears in the listing within this time, or never.
    pub appear: Duration,
    /// A terminated machine leaves the listing within this time.
    pub end: Duration,
    /// So many machines of one kind are tried when they do not come up.
    pub hosts: usize,
}

impl Default for Patience {
    fn default() -> Self {
        // What others wait for RunPod: secure machines take 1 to 4 minutes, large images longer; 5 s between questions
        // stays far below the limit on requests.
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            poll: Duration::from_secs(5),
            start: minutes(10),
            reach: minutes(3),
            appear: Duration::from_secs(20),
            end: minutes(5),
            hosts: 2,
        }
    }
}

impl Patience {
    /// `OUTLIER_POLL_SECONDS` sets the pace, for services that are quicker; deadlines follow it.
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
            // What does not depend on the service's pace keeps a floor.
            start: scaled(default.start).max(Duration::from_secs(5)),
            reach: scaled(default.reach).max(Duration::from_secs(30)),
            appear: scaled(default.appear),
            hosts: default.hosts,
            end: scaled(default.end).max(Duration::from_secs(15)),
        }
    }
}
