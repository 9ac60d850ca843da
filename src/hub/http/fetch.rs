//! Fetches a byte range of one file. After an interruption or a stall only the missing bytes are
//! requested again.

use std::ops::Range;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response};

use super::attempt::{Attempt, Trouble};
use super::body::Body;
use super::client::{Http, Patience};
use super::refusal::Refusal;
use super::resolve::RemoteFile;
use crate::error::{Error, Result};
use crate::hub::failure::{Failure, refused};
use crate::plain::plain;

/// The largest number of bytes before a range that are skipped if a server ignores ranges and sends
/// the whole file.
const MAX_SKIPPED: u64 = 16 << 20;
/// The number of bytes that a request must bring (or the rest) to reset the count of failures.
/// Otherwise a server that sends one byte each time would be asked for ever.
const LEAST_PROGRESS: usize = 64 << 10;
/// Memory that is reserved before anything has arrived.
const SET_ASIDE: usize = 8 << 20;
/// The number of times in a row that the hub may return an address that refuses.
const MAX_EXPIRED: u32 = 3;

/// Fetches the bytes of a non-empty `range`.
///
/// # Errors
/// `corrupt` if the file has changed since it was resolved, `io` if nothing arrives in several
/// attempts in a row, and the hub's refusals.
pub(crate) async fn fetch(http: &Http, file: &RemoteFile, range: Range<u64>) -> Result<Vec<u8>> {
    let length = (range.end - range.start) as usize;
    let mut data = Vec::with_capacity(length.min(SET_ASIDE));
    let mut patience = Patience::default();
    let mut expired = 0;
    while data.len() < length {
        let had = data.len();
        let place = file.place().await;
        let first = range.start + had as u64;
        let attempt = async {
            let response = http.send(Method::GET, &place.url, Some((first, range.end - 1))).await?;
            let skip = accept(http, file, &response, first, &range)?;
            file.check_version(place.generation, response.headers()).await.map_err(Trouble::Fatal)?;
            receive(http, response, skip, length, &mut data).await
        };
        let outcome = attempt.await;
        if data.len() - had >= LEAST_PROGRESS.min(length - had) {
            patience.progress();
            expired = 0;
        }
        match outcome {
            Ok(()) => (),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Refused(refusal)) => return Err(refused(&file.doing(), refusal)),
            Err(Trouble::Passing { problem, after }) => patience.wait(&problem, after, &file.doing()).await?,
            Err(Trouble::Expired) => {
                expired += 1;
                if expired > MAX_EXPIRED {
                    return Err(refused(&file.doing(), Refusal::NoAccess));
                }
                file.resolve_again(http, place.generation).await?;
            }
        }
    }
    Ok(data)
}

/// Checks that this answers the request, and returns how many of its bytes come before `first`.
fn accept(http: &Http, file: &RemoteFile, response: &Response, first: u64, range: &Range<u64>) -> Attempt<u64> {
    match response.status().as_u16() {
        206 => {
            let text = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let (start, end, total) = content_range(text).ok_or_else(|| {
                let problem = format!("the answer's Content-Range is \"{}\"", plain(text, 100));
                Trouble::Passing { problem, after: None }
            })?;
            if total != file.bytes {
                return Err(Trouble::Fatal(file.changed()));
            }
            if start != first || end > range.end {
                let problem = format!("asked for bytes from {first}, got {start} to {end}");
                return Err(Trouble::Passing { problem, after: None });
            }
            Ok(0)
        }
        200 if response.content_length().is_some_and(|length| length != file.bytes) => {
            Err(Trouble::Fatal(file.changed()))
        }
        200 if first <= MAX_SKIPPED => Ok(first),
        200 => Err(Trouble::Fatal(Error::of(Failure::NoRanges { doing: file.doing() }))),
        416 => Err(Trouble::Fatal(file.changed())),
        300..=399 => Err(Trouble::Expired),
        _ => Err(http.trouble(response)),
    }
}

/// Parses `bytes 5-9/100` as (5, 10, 100).
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?, total.parse().ok()?))
}

/// Appends the body, without its first `skip` bytes, to `data` until that has `length` bytes.
async fn receive(http: &Http, response: Response, skip: u64, length: usize, data: &mut Vec<u8>) -> Attempt<()> {
    let (mut skip, mut body) = (skip, Body::new(response, http.stall));
    while data.len() < length {
        let early = || Trouble::Passing { problem: "the answer ended early".to_string(), after: None };
        let chunk = body.chunk().await?.ok_or_else(early)?;
        let skipped = skip.min(chunk.len() as u64);
        skip -= skipped;
        let chunk = &chunk[skipped as usize..];
        data.extend_from_slice(&chunk[..chunk.len().min(length - data.len())]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn content_ranges() {
        assert_eq!(super::content_range("bytes 5-9/100"), Some((5, 10, 100)));
        for bad in ["", "bytes */100", "5-9/100", "bytes 5-/100", "bytes 0-18446744073709551615/9"] {
            assert_eq!(super::content_range(bad), None, "{bad}");
        }
    }
}
