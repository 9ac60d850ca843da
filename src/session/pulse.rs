//! Memory that a worker and its guardian share: a page of single numbers, such as the end of the
//! lease and the progress of work. It is accessed without a lock, so that neither process can block
//! or harm the other.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

use super::failure::Failure;
use crate::error::{Error, Result};

/// The longest duration: sums of it stay far within the range of the clock.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Limits after which a worker ends by itself.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Time without a client that renews the lease.
    pub lease: Option<Duration>,
    /// Time without progress while a call is running.
    pub stall: Option<Duration>,
    /// Total time.
    pub lifetime: Option<Duration>,
}

/// A number of seconds from outside; None if it is negative or not finite.
pub fn seconds(number: f64) -> Option<Duration> {
    let sound = number.is_finite() && number >= 0.0;
    sound.then(|| Duration::try_from_secs_f64(number).unwrap_or(LONGEST).min(LONGEST))
}

/// Milliseconds of a clock that all processes of a machine share and nobody can set; never 0.
pub(super) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a structure that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).saturating_mul(1000).saturating_add(time.tv_nsec as u64 / 1_000_000).max(1)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The reason why a worker must end.
const BY_CLIENT: u64 = 1;
const BY_SIGNAL: u64 = 2;
const BY_GUARDIAN: u64 = 3;

/// The shared numbers. Times are those of `now`, and 0 means never.
#[repr(C)]
pub struct Pulse {
    started: AtomicU64,
    leased_until: AtomicU64,
    progress: AtomicU64,
    /// Heartbeat of the worker's main thread, which distinguishes a stuck worker from one that is
    /// cleaning up.
    beat: AtomicU64,
    at_work: AtomicU64,
    /// Number of unexpected ends of workers since a call last began for the first time or ended.
    deaths: AtomicU64,
    wish: AtomicU64,
}

impl Pulse {
    /// The reason to end, if there is one.
    pub fn over(&self, limits: &Limits) -> Option<String> {
        if let Some(wish) = self.wish() {
            return Some(wish.to_string());
        }
        let now = now();
        let since = |time: &AtomicU64| now.saturating_sub(time.load(Ordering::SeqCst));
        let passed = |limit: Option<Duration>, time: u64| limit.is_some_and(|limit| time > milliseconds(limit));
        let leased_until = self.leased_until.load(Ordering::SeqCst);
        if leased_until != 0 && now > leased_until {
            return Some("its lease ran out: no client has renewed it".to_string());
        }
        let standing = since(&self.progress);
        if passed(limits.stall, standing) && self.is_at_work() {
            return Some(format!("no call has made progress for {} s", standing / 1000));
        }
        let age = since(&self.started);
        passed(limits.lifetime, age).then(|| format!("its lifetime of {} s is over", age / 1000))
    }

    fn wish(&self) -> Option<&'static str> {
        match self.wish.load(Ordering::SeqCst) {
            0 => None,
            BY_CLIENT => Some("a client ended it"),
            BY_SIGNAL => Some("it was told to stop by a signal"),
            _ => Some("its guardian ended it"),
        }
    }

    fn wants(&self, wish: u64) {
        let _ = self.wish.compare_exchange(0, wish, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub fn end_by_client(&self) {
        self.wants(BY_CLIENT);
    }

    pub fn end_by_signal(&self) {
        self.wants(BY_SIGNAL);
    }

    pub fn end_by_guardian(&self) {
        self.wants(BY_GUARDIAN);
    }

    /// True if an end was requested, without a limit being reached.
    pub fn was_told(&self) -> bool {
        matches!(self.wish.load(Ordering::SeqCst), BY_CLIENT | BY_SIGNAL)
    }

    pub fn is_ending(&self) -> bool {
        self.wish().is_some()
    }

    /// Renews the lease for this time from now on. A worker without a lease does not get one.
    pub fn renew(&self, time: Duration) {
        if self.leased_until.load(Ordering::SeqCst) != 0 {
            self.leased_until.store(now().saturating_add(milliseconds(time)), Ordering::SeqCst);
        }
    }

    /// Seconds until the lease ends; None if there is none.
    pub fn lease(&self) -> Option<f64> {
        let until = self.leased_until.load(Ordering::SeqCst);
        (until != 0).then(|| until.saturating_sub(now()) as f64 / 1000.0)
    }

    pub fn progressed(&self) {
        self.progress.store(now(), Ordering::SeqCst);
    }

    /// Seconds since the last progress.
    pub fn since_progress(&self) -> f64 {
        now().saturating_sub(self.progress.load(Ordering::SeqCst)) as f64 / 1000.0
    }

    /// Seconds since the guardian began, independently of workers.
    pub fn age(&self) -> f64 {
        now().saturating_sub(self.started.load(Ordering::SeqCst)) as f64 / 1000.0
    }

    pub fn beats(&self) {
        self.beat.store(now(), Ordering::SeqCst);
    }

    pub fn since_beat(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.beat.load(Ordering::SeqCst)))
    }

    pub fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::SeqCst) > 0
    }

    pub fn begin_work(&self) {
        self.progressed();
        self.at_work.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end_work(&self) {
        self.progressed();
        self.at_work.fetch_sub(1, Ordering::SeqCst);
    }

    /// Called when a worker begins: the calls of the previous one do not run any more.
    pub fn begins(&self) {
        self.at_work.store(0, Ordering::SeqCst);
        self.progressed();
        self.beats();
    }

    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::SeqCst)
    }

    /// Returns the number of deaths, including this one.
    pub fn died(&self) -> u64 {
        self.at_work.store(0, Ordering::SeqCst);
        self.deaths.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn forgive(&self) {
        self.deaths.store(0, Ordering::SeqCst);
    }
}

/// The page, which belongs to the holders of its descriptor.
pub struct Page {
    file: File,
    memory: MmapRaw,
}

impl Page {
    pub fn new(limits: &Limits) -> Result<Self> {
        let making = |e: std::io::Error| Error::io("making memory that a worker and its guardian share", &e);
        let file = unnamed().map_err(making)?;
        file.set_len(size_of::<Pulse>() as u64).map_err(making)?;
        let page = Self::of(file)?;
        page.started.store(now(), Ordering::SeqCst);
        page.leased_until.store(limits.lease.map_or(0, |lease| now() + milliseconds(lease)), Ordering::SeqCst);
        page.begins();
        Ok(page)
    }

    /// The page of another process, by its inherited file.
    pub fn of(file: File) -> Result<Self> {
        let mapping = |e: std::io::Error| Error::io("looking at memory that a worker and its guardian share", &e);
        if file.metadata().map_err(mapping)?.len() < size_of::<Pulse>() as u64 {
            return Err(Error::of(Failure::NotAPage));
        }
        let memory = MmapOptions::new().len(size_of::<Pulse>()).map_raw(&file).map_err(mapping)?;
        Ok(Self { file, memory })
    }

    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Deref for Page {
    type Target = Pulse;

    fn deref(&self) -> &Pulse {
        // SAFETY: the mapping has the size of a `Pulse` and begins at a page. Every bit pattern is
        // a valid value, and all processes change it only through atomics.
        unsafe { &*self.memory.as_ptr().cast() }
    }
}

/// Memory as a file without a name.
fn unnamed() -> std::io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the name ends with NUL, and nobody else owns the new descriptor.
        let descriptor = unsafe { libc::memfd_create(c"outlier".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
    }
    #[cfg(not(target_os = "linux"))]
    {
        tempfile::tempfile()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_are_durations() {
        for number in [f64::NAN, -1.0, -0.001, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(seconds(number), None, "{number}");
        }
        for number in [1e300, f64::MAX, 1e20, 1e10] {
            assert_eq!(seconds(number), Some(LONGEST), "{number}");
        }
        assert_eq!(seconds(1.5), Some(Duration::from_millis(1500)));
        assert_eq!(seconds(0.0), Some(Duration::ZERO));
        let limits = Limits { lease: Some(LONGEST), stall: Some(LONGEST), lifetime: Some(LONGEST) };
        let page = Page::new(&limits).unwrap();
        page.renew(LONGEST);
        page.begin_work();
        assert_eq!(page.over(&limits), None);
    }

    #[test]
    fn limits_end_what_they_limit() {
        let short = Some(Duration::from_millis(30));
        let over = |limits: Limits, work: bool| {
            let page = Page::new(&limits).unwrap();
            if work {
                page.begin_work();
            }
            std::thread::sleep(Duration::from_millis(60));
            page.over(&limits).unwrap_or_default()
        };
        assert!(over(Limits { lease: short, ..Limits::default() }, true).contains("lease ran out"));
        assert!(over(Limits { stall: short, ..Limits::default() }, true).contains("no call has made progress"));
        assert_eq!(over(Limits { stall: short, ..Limits::default() }, false), "");
        assert!(over(Limits { lifetime: short, ..Limits::default() }, false).contains("lifetime"));
        assert_eq!(over(Limits::default(), true), "");
    }
}
