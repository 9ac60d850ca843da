//! Requests to the hub: the client with its waits, what the hub says of a file, and ranges of its
//! bytes.

pub(super) mod attempt;
pub(super) mod body;
pub(super) mod client;
pub(super) mod fetch;
pub(super) mod questions;
pub(super) mod ranges;
mod redirect;
pub(super) mod refusal;
pub(super) mod resolve;
