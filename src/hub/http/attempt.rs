//! The result of one attempt of a request to the hub.

use std::time::Duration;

use super::refusal::Refusal;
use crate::error::Error;

/// The reason why a request failed.
pub(crate) enum Trouble {
    /// Another attempt will not help.
    Fatal(Error),
    /// The hub refuses the request.
    Refused(Refusal),
    /// Another attempt may help, after `after` if the server has asked for a wait.
    Passing { problem: String, after: Option<Duration> },
    /// The signed address has expired.
    Expired,
}

/// The result of one attempt.
pub(crate) type Attempt<T> = std::result::Result<T, Trouble>;
