//! Client of RunPod's REST API v2 (`https://api.runpod.io/v2`): one exchange per call, with errors
//! by their meaning. The key is sent over https or to this computer, and never to a redirect. Every
//! answer is bounded in bytes and time.

use std::io::Read;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::{StatusCode, redirect};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::gpu::failure::{Failure, root};
use crate::outside::{self, json, tls};
use crate::plain::plain;
use crate::progress::{interrupt_requested, note};
use crate::secret::{self, Secret};
use crate::threads;

const BASE: &str = "https://api.runpod.io";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Reading a log ends after this time, because the stream never ends.
const LOG_TIME: Duration = Duration::from_secs(3);
/// Attempts of a repeatable exchange, and the longest pause between them.
const ATTEMPTS: u32 = 6;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A pause of at least this length is reported.
const LONG_PAUSE: Duration = Duration::from_secs(5);
const INTERRUPT_POLL: Duration = Duration::from_millis(100);
/// Largest size in bytes of an answer, of an error, and of a log.
const ANSWER: u64 = 32 << 20;
const FAILURE: u64 = 64 << 10;
const LOG: u64 = 16 << 20;
/// Largest number of JSON values in an answer (a page of a thousand machines), and in a line of a
/// log.
const VALUES: usize = 200_000;
const LINE_VALUES: usize = 1000;
/// Largest number of shown characters of the service's messages, and of a line of a log.
const WORDS: usize = 400;
const LINE: usize = 2000;
/// The service rejects generic user agents.
pub(super) const AGENT: &str = concat!("outlier/", env!("CARGO_PKG_VERSION"));

pub(super) struct Client {
    base: String,
    key: Secret,
    http: Http,
}

impl Client {
    pub(super) fn new(key: Secret) -> Result<Self> {
        let base = base();
        if !secret::may_travel(&base) {
            return Err(Error::of(Failure::KeyTravels(plain(&base, 200))));
        }
        // The library panics if it cannot start its two threads.
        threads::spare(2).map_err(|e| Error::no_thread("RunPod", &e))?;
        tls::prepare();
        let http = Http::builder().user_agent(AGENT).timeout(TIMEOUT).connect_timeout(Duration::from_secs(15));
        let http = http.redirect(redirect::Policy::none()).no_gzip().no_brotli().no_deflate().no_zstd();
        let http = if secret::is_open_here(&base) { http.no_proxy() } else { http };
        let http = http.build().map_err(|e| Error::of(Failure::RunPodClient(e)))?;
        Ok(Self { base, key, http })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose())
    }

    /// A query without effects. It is repeated if the service is overloaded.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let response = self.patiently(true, || self.request(reqwest::Method::GET, path))?;
        parsed(response)
    }

    /// As `get`; None if the object does not exist.
    pub(super) fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path) {
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// A change. It is repeated only if the service reports that nothing was done (429).
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut attempt = 0;
        loop {
            let response = sent(self.request(reqwest::Method::POST, path).json(body))?
                .map_err(|e| Error::of(Failure::RunPodSilent(e)))?;
            match response.status() {
                StatusCode::TOO_MANY_REQUESTS if attempt < ATTEMPTS => sleep(&pause(&response, attempt), true)?,
                status if status.is_success() => return parsed(response),
                _ => return Err(failure(response)),
            }
            attempt += 1;
        }
    }

    /// Requests a deletion. A missing object is not an error.
    pub(super) fn delete(&self, path: &str) -> Result<()> {
        match self.patiently(false, || self.request(reqwest::Method::DELETE, path)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The available lines of a stream of server-sent events.
    pub(super) fn lines(&self, path: &str) -> Result<Vec<String>> {
        let response = sent(self.request(reqwest::Method::GET, path).timeout(LOG_TIME))?
            .map_err(|e| Error::of(Failure::RunPodSilent(e)))?;
        if !response.status().is_success() {
            return Err(failure(response));
        }
        let mut bytes = Vec::new();
        // Reading ends at the time limit.
        let _ = response.take(LOG).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let line =
            |data: &str| Some(plain(json::from_slice(data.as_bytes(), LINE_VALUES).ok()?["line"].as_str()?, LINE));
        Ok(text.lines().filter_map(|frame| frame.strip_prefix("data:")).filter_map(|data| line(data.trim())).collect())
    }

    /// If `may_stop`, an interruption by the user ends the request, and not only a pause.
    fn patiently(&self, may_stop: bool, request: impl Fn() -> RequestBuilder) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let last = attempt + 1 >= ATTEMPTS;
            match sent(request())? {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if !last && passes(response.status()) => sleep(&pause(&response, attempt), may_stop)?,
                Ok(response) => return Err(failure(response)),
                Err(error) if last => return Err(Error::of(Failure::RunPodSilent(error))),
                Err(_) => sleep(&Pause { time: backoff(attempt), why: SILENT }, may_stop)?,
            }
            attempt += 1;
        }
    }
}

/// The variable with the address of another service with RunPod's API.
const ELSEWHERE: &str = "OUTLIER_RUNPOD_URL";

/// The address of RunPod.
pub fn base() -> String {
    let other = std::env::var(ELSEWHERE).ok().filter(|url| !url.is_empty());
    other.map_or_else(|| BASE.to_string(), |url| url.trim_end_matches('/').to_string())
}

fn passes(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn backoff(attempt: u32) -> Duration {
    (Duration::from_millis(500) * 2u32.pow(attempt.min(10))).min(LONGEST_PAUSE)
}

/// The wait before the next attempt, and its reason for people.
struct Pause {
    time: Duration,
    why: &'static str,
}

const ASKED: &str = "RunPod asks to wait";
const SILENT: &str = "RunPod does not answer: it is asked again in";
const BUSY: &str = "RunPod is busy: it is asked again in";

/// The wait that the service asks for, or one that grows with each attempt.
fn pause(response: &Response, attempt: u32) -> Pause {
    let asked = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.parse().ok());
    let (time, why) = asked.map_or_else(|| (backoff(attempt), BUSY), |seconds| (Duration::from_secs(seconds), ASKED));
    Pause { time: time.min(LONGEST_PAUSE), why }
}

/// Waits, unless the user interrupts meanwhile. Earlier interruptions do not count, so that
/// terminating machines afterwards still has time.
///
/// # Errors
/// `interrupted` in that case, if `may_stop`.
fn sleep(pause: &Pause, may_stop: bool) -> Result<()> {
    let Pause { time, why } = *pause;
    let (begin, before) = (Instant::now(), interrupt_requested());
    if time >= LONG_PAUSE {
        note(&format!("{why} {} s", time.as_secs()));
    }
    while begin.elapsed() < time {
        if interrupt_requested() && !before {
            return if may_stop { Err(Error::interrupted()) } else { Ok(()) };
        }
        std::thread::sleep(INTERRUPT_POLL.min(time));
    }
    Ok(())
}

/// Sends a request. The library panics if it needs a thread and the system has none.
fn sent(request: RequestBuilder) -> Result<reqwest::Result<Response>> {
    outside::guarded(|| request.send()).map_err(|said| Error::no_thread("RunPod", &std::io::Error::other(said)))
}

/// The first bytes of a body. An interrupted answer is an error.
fn bytes(response: Response, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let cut_off = |source| Error::of(Failure::RunPodCutOff { words: plain(&root(&source), WORDS), source });
    response.take(most).read_to_end(&mut bytes).map_err(cut_off)?;
    Ok(bytes)
}

fn parsed(response: Response) -> Result<Value> {
    let text = bytes(response, ANSWER + 1)?;
    if text.len() as u64 > ANSWER {
        return Err(Error::of(Failure::RunPodTooLong { most_mb: ANSWER >> 20 }));
    }
    json::from_slice(&text, VALUES).map_err(|e| Error::of(Failure::RunPodNotJson(outside::complaint(e))))
}

/// Messages for "no such machine is available", in lower case.
const NO_CAPACITY: &[&str] = &[
    "no longer any instances",
    "no instances currently",
    "not have the resources",
    "not enough free gpus",
    "unable to find a machine",
];

/// The meaning of an answer other than success.
fn failure(response: Response) -> Error {
    let status = response.status();
    let problem = response
        .headers()
        .get("Content-Type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    let body = bytes(response, FAILURE).unwrap_or_default();
    let told: Value = json::from_slice(&body, VALUES).unwrap_or_default();
    let mut detail = told["detail"].as_str().unwrap_or("no details").to_string();
    if let Some(errors) = told["errors"].as_array() {
        let errors: Vec<_> = errors.iter().filter_map(Value::as_str).collect();
        detail = format!("{detail} {}", errors.join("; "));
    }
    let detail = plain(&detail, WORDS);
    let lower = detail.to_lowercase();
    let error = |kind, message, hint| Error::of(Failure::RunPodRefused { kind, message, hint, status, detail });
    match status.as_u16() {
        401 => error(
            Kind::Auth,
            "the API key is not accepted",
            "make a key at RunPod, Settings, API Keys, and set RUNPOD_API_KEY",
        ),
        402 => error(
            Kind::NoFunds,
            "the account cannot pay for this",
            "add funds to the RunPod account; an hour's price must be there",
        ),
        // A firewall in front of the service answers so, not the service.
        403 if !problem => {
            error(Kind::Service, "the request was turned away before it arrived", "try again in a minute")
        }
        300..=399 => error(
            Kind::Service,
            "the service is elsewhere",
            "is OUTLIER_RUNPOD_URL the address itself? the key follows no redirect",
        ),
        403 => error(
            Kind::Auth,
            "the key may not do this",
            "give the key read and write access to pods, or choose another `cloud`",
        ),
        404 if problem => error(Kind::NotFound, "there is no such thing", "`outlier gpus --all` lists what there is"),
        400 | 409 if NO_CAPACITY.iter().any(|words| lower.contains(words)) => error(
            Kind::NoCapacity,
            "no such machine is free",
            "name other GPUs, another `cloud` or a higher `max_price`; `outlier offers` lists what there is",
        ),
        400 | 409 | 413 | 422 => error(
            Kind::BadArgument,
            "the request was refused",
            "is this program up to date? RunPod's rules may have changed",
        ),
        429 => error(Kind::Service, "too many requests", "wait a few minutes"),
        _ => error(Kind::Service, "the service failed", "try again in a minute"),
    }
}
