//! The hub over HTTP: one client and one small runtime per process, started at the first request,
//! the interpretation of answers, and waits between attempts.
//!
//! The token is sent to the hub's own address only, over https or inside this computer. Every
//! answer is bounded in bytes and in time. Interpretations follow huggingface_hub's
//! `utils/_http.py`.

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, Url};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::attempt::{Attempt, Trouble};
use super::body::Body;
use super::redirect;
use super::refusal::Refusal;
use crate::error::{Error, Result};
use crate::hub::environment;
use crate::hub::failure::{Failure, refused};
use crate::outside::{self, complaint, tls};
use crate::plain::plain;
use crate::progress::{interrupt_requested, note};
use crate::secret::{self, Secret};
use crate::threads;

/// Number of attempts without progress after which a request is given up.
const MAX_ATTEMPTS: u32 = 6;
/// Wait before the second attempt. It doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The hub counts requests in windows of five minutes, so that it never asks for a much longer
/// wait.
const LONGEST_RATE_WAIT: Duration = Duration::from_secs(330);
/// The largest number of waits in a row that a server may ask for, and their largest total length.
const MAX_RATE_WAITS: u32 = 8;
const MOST_WAITED: Duration = Duration::from_secs(20 * 60);
/// A wait of at least this length is reported, at most once in a time.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// After a request has failed for good, others do not retry for this long.
const HOPELESS: Duration = Duration::from_secs(60);
const BETWEEN_NOTES: Duration = Duration::from_secs(20);
/// The largest number of pages of a list of the API, and of their bytes together.
const MAX_PAGES: usize = 2000;
const MAX_JSON_BYTES: usize = 64 << 20;
const MAX_REDIRECTS: usize = 6;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time-out for answers that are optional.
const HURRIED: Duration = Duration::from_secs(3);
/// Threads of the runtime. They transfer and decrypt bytes.
const THREADS: usize = 2;
/// Idle threads stay as long as the process.
const KEPT: Duration = Duration::from_secs(1 << 30);
const INTERRUPT_POLL: Duration = Duration::from_millis(100);

/// The process's runtime for everything that waits for the network.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Starts the runtime with one additional thread, which stays and resolves host names. Without it a
/// query would wait for ever if the system allows no more threads.
///
/// # Errors
/// `io` if the system has too few threads left.
fn start() -> Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if RUNTIME.get().is_some() {
        return Ok(());
    }
    // The library panics if it cannot start its own threads.
    threads::spare(THREADS + 1).map_err(|e| Error::no_thread("the hub", &e))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("hub").thread_keep_alive(KEPT).enable_all();
    let runtime = outside::guarded(|| builder.build()).map_err(std::io::Error::other).flatten();
    let runtime = runtime.map_err(|e| Error::no_thread("the hub", &e))?;
    runtime.spawn_blocking(|| ());
    let _ = RUNTIME.set(runtime);
    Ok(())
}

/// The runtime, which the client has started.
fn runtime() -> &'static Runtime {
    RUNTIME.get().expect("`Http::new` has started it")
}

pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(work: F) -> tokio::task::AbortHandle {
    runtime().spawn(work).abort_handle()
}

/// Runs `work` on the runtime and waits for it, or for an interruption by the user.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (done, result) = channel();
    let task = spawn(async move {
        let _ = done.send(work.await);
    });
    loop {
        match result.recv_timeout(INTERRUPT_POLL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if !interrupt_requested() => (),
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                return Err(Error::interrupted());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::of(Failure::NoAnswer));
            }
        }
    }
}

pub(crate) struct Http {
    /// For addresses of this computer over plain http. It passes no proxy, which would get a token
    /// in the clear.
    here: Client,
    /// For all other addresses.
    others: Client,
    endpoint: Url,
    token: Option<Secret>,
    pub stall: Duration,
}

impl Http {
    /// # Errors
    /// `bad_argument` if `HF_ENDPOINT` is not an address, `io` if the system allows no threads.
    pub(crate) fn new() -> Result<Self> {
        start()?;
        let text = environment::endpoint();
        let is_base = |url: &Url| url.has_host() && url.query().is_none() && url.fragment().is_none();
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https");
        let endpoint = Url::parse(&text).ok().filter(|url| is_http(url) && is_base(url));
        let endpoint = endpoint.ok_or_else(|| Error::of(Failure::BadEndpoint(text.clone())))?;
        tls::prepare();
        let client = |proxies: bool| {
            // HTTP/1 with many connections: ranges must not wait for each other in one connection.
            let client = Client::builder().http1_only().redirect(Policy::none());
            let client = client.connect_timeout(CONNECT_TIMEOUT);
            // Compressed answers are not decompressed, because nothing is known about their size,
            // and so are not accepted.
            let client = client.no_gzip().no_brotli().no_deflate().no_zstd();
            let client = client.user_agent(concat!("outlier/", env!("CARGO_PKG_VERSION"))).tcp_nodelay(true);
            let client = if proxies { client } else { client.no_proxy() };
            client.build().map_err(|e| Error::of(Failure::Client(e)))
        };
        let (here, others) = (client(false)?, client(true)?);
        let (held, token) = (environment::token(), environment::token_for_endpoint());
        if held.is_some() && token.is_none() {
            static TOLD: OnceLock<()> = OnceLock::new();
            TOLD.get_or_init(|| note(&format!("HF_ENDPOINT is {}: {}", plain(&text, 200), environment::UNCOVERED)));
        }
        Ok(Self { here, others, endpoint, token, stall: environment::stall_timeout() })
    }

    /// The same client for optional answers.
    pub(crate) fn hurried(self) -> Self {
        Self { stall: self.stall.min(HURRIED), ..self }
    }

    /// An address of the hub itself; `path` begins with a slash.
    pub(crate) fn url(&self, path: &str) -> Url {
        let base = self.endpoint.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path}")).expect("a path behind a valid address is valid")
    }

    pub(crate) fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Sends one request and receives the head of its answer. Redirects are not followed.
    pub(crate) async fn send(&self, method: Method, url: &Url, range: Option<(u64, u64)>) -> Attempt<Response> {
        let client = if secret::is_open_here(url.as_str()) { &self.here } else { &self.others };
        let mut request = client.request(method, url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some((first, last)) = range {
            request = request.header(RANGE, format!("bytes={first}-{last}"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let unanswered = |problem| {
            UNANSWERED.fetch_add(1, Ordering::Relaxed);
            Trouble::Passing { problem, after: None }
        };
        match timeout(self.stall, request.send()).await {
            Err(_) => Err(unanswered(format!("no answer within {} s", self.stall.as_secs_f32()))),
            Ok(Err(error)) => Err(unanswered(told(&error))),
            Ok(Ok(response)) => {
                UNANSWERED.store(0, Ordering::Relaxed);
                *given_up() = None;
                Ok(response)
            }
        }
    }

    /// Follows redirects within the hub. An answer that leads to another host is returned as it is.
    pub(crate) async fn send_within(&self, method: Method, url: Url) -> Attempt<Answer> {
        let mut url = url;
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(method.clone(), &url, None).await?;
            let status = response.status();
            if status.is_redirection() {
                let next = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let next = next.and_then(|next| url.join(next).ok());
                let next =
                    next.ok_or_else(|| Trouble::Passing { problem: "a redirect to nowhere".into(), after: None })?;
                if let Some(refusal) = redirect::refused(&self.endpoint, &next) {
                    return Err(Trouble::Refused(refusal));
                }
                if !self.is_hub(&next) {
                    return Ok(Answer { response, elsewhere: Some(next), url });
                }
                url = next;
                continue;
            }
            return match status.is_success() {
                true => Ok(Answer { response, elsewhere: None, url }),
                false => Err(self.trouble(&response)),
            };
        }
        Err(Trouble::Passing { problem: "too many redirects".to_string(), after: None })
    }

    /// Queries the hub's API for JSON, one value per page. Lists with several pages are read
    /// completely. `T` has the needed fields of a page, and others take no memory.
    ///
    /// # Errors
    /// `io` if there are more pages or bytes than any list has, or if a page links to an earlier
    /// one.
    pub(crate) fn json<T: DeserializeOwned + Send + 'static>(
        self: &Arc<Self>,
        path: &str,
        doing: &str,
        patience: fn() -> Patience,
    ) -> Result<Vec<T>> {
        let (http, url, doing) = (self.clone(), self.url(path), doing.to_string());
        wait(async move {
            let (mut all, mut next, mut seen, mut room) = (Vec::new(), Some(url), HashSet::new(), MAX_JSON_BYTES);
            while let Some(url) = next {
                if seen.len() >= MAX_PAGES || !seen.insert(url.clone()) {
                    return Err(Error::of(Failure::BadAnswer { doing, problem: "the list has no end".to_string() }));
                }
                let (page, behind, bytes) = http.json_page(url, &doing, room, patience()).await?;
                (next, room) = (behind, room - bytes);
                all.push(page);
            }
            Ok(all)
        })
    }

    /// A page, the address of the next one, and the length of this one, which is at most `room`
    /// bytes.
    async fn json_page<T: DeserializeOwned + Send>(
        &self,
        url: Url,
        doing: &str,
        room: usize,
        mut patience: Patience,
    ) -> Result<(T, Option<Url>, usize)> {
        loop {
            let attempt = async {
                let answer = self.send_within(Method::GET, url.clone()).await?;
                let next = answer.response.headers().get("Link").and_then(|value| value.to_str().ok());
                let next =
                    next.and_then(next_page).and_then(|next| url.join(&next).ok()).filter(|next| self.is_hub(next));
                let fatal = |problem: String| {
                    Trouble::Fatal(Error::of(Failure::BadAnswer { doing: doing.to_string(), problem }))
                };
                let (mut body, mut text) = (Body::new(answer.response, self.stall), Vec::new());
                while let Some(chunk) = body.chunk().await? {
                    if text.len() + chunk.len() > room {
                        return Err(fatal(format!("the answer is longer than {} MB", MAX_JSON_BYTES >> 20)));
                    }
                    text.extend_from_slice(&chunk);
                }
                let page = serde_json::from_slice(&text).map_err(|e| {
                    let what = if e.is_data() { "the answer is of another form" } else { "the answer is not JSON" };
                    fatal(format!("{what}: {}", complaint(e)))
                })?;
                Ok::<_, Trouble>((page, next, text.len()))
            };
            match attempt.await {
                Ok(page) => return Ok(page),
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Refused(refusal)) => return Err(refused(doing, refusal)),
                Err(Trouble::Expired) => return Err(refused(doing, Refusal::NoAccess)),
                Err(Trouble::Passing { problem, after }) => patience.wait(&problem, after, doing).await?,
            }
        }
    }

    /// The meaning of a status that is not a success.
    pub(crate) fn trouble(&self, response: &Response) -> Trouble {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let hub = self.is_hub(response.url());
        match status {
            429 => Trouble::Passing { problem: "the rate is limited".to_string(), after: Some(rate_wait(headers)) },
            408 | 500..=599 => Trouble::Passing { problem: format!("status {status}"), after: retry_after(headers) },
            // Signed addresses expire, and such a refusal says nothing about the user.
            400 | 401 | 403 | 404 | 410 if !hub => Trouble::Expired,
            _ => Trouble::Refused(Refusal::of(status, headers, hub && self.token.is_some())),
        }
    }
}

pub(crate) struct Answer {
    pub response: Response,
    /// The other host that a redirect leads to.
    pub elsewhere: Option<Url>,
    /// The address on the hub that has answered.
    pub url: Url,
}

/// The last cause in the chain of an error of the HTTP library, which is the most specific.
fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The address in `Link: <ADDRESS>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_string())
}

/// `Retry-After` in seconds, limited to the longest accepted wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("Retry-After")?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RATE_WAIT))
}

/// The wait that a 429 asks for: `Retry-After`, or the `t` of a `RateLimit` header whose window is
/// used up, plus a second.
fn rate_wait(headers: &HeaderMap) -> Duration {
    let limit = headers.get("RateLimit").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let field = |name: &str| limit.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse::<u64>().ok());
    let window = || field("t=").filter(|_| field("r=") == Some(0)).map(|t| Duration::from_secs(t.saturating_add(1)));
    retry_after(headers).or_else(window).unwrap_or(LONGEST_WAIT).min(LONGEST_RATE_WAIT)
}

/// Number of requests since the last answer.
static UNANSWERED: AtomicU32 = AtomicU32::new(0);
/// The time at which a request was last given up because nothing answered. Soon after that,
/// requests are tried once.
static GIVEN_UP: Mutex<Option<Instant>> = Mutex::new(None);

fn given_up() -> MutexGuard<'static, Option<Instant>> {
    GIVEN_UP.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Counts attempts without progress and waits between them, about twice as long each time.
pub(crate) struct Patience {
    attempts: u32,
    /// The largest total of waits that servers ask for.
    most_waited: Duration,
    failures: u32,
    rate_waits: u32,
    waited: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: MAX_ATTEMPTS, most_waited: MOST_WAITED, failures: 0, rate_waits: 0, waited: Duration::ZERO }
    }
}

impl Patience {
    /// For data that probably does not exist.
    pub(crate) fn brief() -> Self {
        Self { attempts: 3, most_waited: Duration::from_secs(30), ..Self::default() }
    }

    /// For optional data: one attempt.
    pub(crate) fn once() -> Self {
        Self { attempts: 1, most_waited: Duration::ZERO, ..Self::default() }
    }

    /// Resets the count of failures, because something has arrived.
    pub(crate) fn progress(&mut self) {
        (self.failures, self.rate_waits, self.waited) = (0, 0, Duration::ZERO);
    }

    /// Waits for the next attempt, or gives up.
    ///
    /// # Errors
    /// `io` after too many attempts without progress, or if the server asks for an unreasonable
    /// wait.
    pub(crate) async fn wait(&mut self, problem: &str, after: Option<Duration>, doing: &str) -> Result<()> {
        let Some(after) = after else {
            self.failures += 1;
            let hopeless = given_up().is_some_and(|since| since.elapsed() < HOPELESS);
            if self.failures >= self.attempts || hopeless {
                if self.failures >= MAX_ATTEMPTS && UNANSWERED.load(Ordering::Relaxed) >= MAX_ATTEMPTS {
                    *given_up() = Some(Instant::now());
                }
                let problem = plain(problem, 200);
                return Err(refused(
                    doing,
                    Refusal::Other(match self.failures {
                        1 => problem,
                        attempts => format!("{problem}, {attempts} times in a row"),
                    }),
                ));
            }
            sleep(jittered((FIRST_WAIT * 2u32.pow(self.failures - 1)).min(LONGEST_WAIT))).await;
            return Ok(());
        };
        let after = jittered(after.min(LONGEST_RATE_WAIT));
        self.rate_waits += 1;
        self.waited += after;
        if self.rate_waits > MAX_RATE_WAITS || self.waited > self.most_waited {
            return Err(refused(doing, Refusal::RateLimited(problem.to_string())));
        }
        tell(after, problem, doing);
        sleep(after).await;
        Ok(())
    }
}

/// Reports a long wait, once for all requests that wait at the same time.
fn tell(wait: Duration, problem: &str, doing: &str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().expect("no panic under this lock");
    if wait >= LONG_WAIT && last.is_none_or(|last| last.elapsed() >= BETWEEN_NOTES) {
        *last = Some(Instant::now());
        note(&format!("{doing}: {problem}; the hub asks to wait {} s", wait.as_secs()));
    }
}

/// Up to a quarter longer, so that requests that failed together do not retry together.
fn jittered(wait: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let hash = nanos.wrapping_mul(0x9e37_79b9).rotate_left(13) % 1000;
    wait + wait.mul_f64(0.25 * hash as f64 / 1000.0)
}

#[cfg(test)]
mod tests;
