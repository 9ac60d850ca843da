//! What one attempt of a request to the hub comes to.

use std::time::Duration;

use super::refusal::Refusal;
use crate::error::Error;

/// Why a request has not brought what it should.
pub enum Trouble {
    /// Another attempt will not help.
    Fatal(Error),
    /// The hub says no.
    Refused(Refusal),
    /// Another attempt may; the server may have said after how long.
    Passing { problem: String, after: Option<Duration> },
    /// A signed address is no longer good.
    Expired,
}

/// What one attempt has brought.
pub type Attempt<T> = std::result::Result<T, Trouble>;
