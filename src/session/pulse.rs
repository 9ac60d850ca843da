//! What a worker and its guardian both see: a page of memory in which single numbers say until when somebody wants the
//! machine, and whether work goes on. It is read and written without a lock, so that nothing that happens to the one can
//! hold up or harm the other.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

use crate::error::{Error, Result};

/// Nobody means longer than this, and sums of it stay far inside of what the clock holds.
pub const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// When a worker ends by itself.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Without a word from a client that wants the machine.
    pub lease: Option<Duration>,
    /// While a call is at work, without any progress of it.
    pub stall: Option<Duration>,
    /// In all.
    pub lifetime: Option<Duration>,
}

/// A number of seconds from outside; None where it is none: negative, infinite, no number.
pub fn seconds(number: f64) -> Option<Duration> {
    let sound = number.is_finite() && number >= 0.0;
    sound.then(|| Duration::try_from_secs_f64(number).unwrap_or(LONGEST).min(LONGEST))
}

/// Milliseconds on a clock that all processes of a machine share and nobody can set; never 0.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a time that is written to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).saturating_mul(1000).saturating_add(time.tv_nsec as u64 / 1_000_000).max(1)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why a worker is to end.
const BY_CLIENT: u64 = 1;
const BY_SIGNAL: u64 = 2;
const BY_GUARDIAN: u64 = 3;

/// Times are on the clock of `now`, 0 for never.
#[repr(C)]
pub struct Pulse {
    started: AtomicU64,
    leased_until: AtomicU64,
    progress: AtomicU64,
    /// Of the worker's main thread, so that one which stands still altogether is told from one that tidies up.
    beat: AtomicU64,
    at_work: AtomicU64,
    /// Ends of workers that nobody wanted, since a call was begun for the first time or has ended.
    deaths: AtomicU64,
    wish: AtomicU64,
}

impl Pulse {
    /// Why it is time to end, if it is.
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

    /// Whether somebody has said that it is to end: no limit was reached.
    pub fn was_told(&self) -> bool {
        matches!(self.wish.load(Ordering::SeqCst), BY_CLIENT | BY_SIGNAL)
    }

    pub fn is_ending(&self) -> bool {
        self.wish().is_some()
    }

    /// Somebody wants the machine for this time from now. A worker without a lease gets none by it.
    pub fn renew(&self, time: Duration) {
        if self.leased_until.load(Ordering::SeqCst) != 0 {
            self.leased_until.store(now().saturating_add(milliseconds(time)), Ordering::SeqCst);
        }
    }

    /// Seconds until the lease runs out; none when there is none.
    pub fn lease(&self) -> Option<f64> {
        let until = self.leased_until.load(Ordering::SeqCst);
        (until != 0).then(|| until.saturating_sub(now()) as f64 / 1000.0)
    }

    pub fn progressed(&self) {
        self.progress.store(now(), Ordering::SeqCst);
    }

    /// Seconds.
    pub fn since_progress(&self) -> f64 {
        now().saturating_sub(self.progress.load(Ordering::SeqCst)) as f64 / 1000.0
    }

    /// Seconds since the guardian began, whatever has become of workers in between.
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

    /// A worker begins: whatever the one before it was doing, it does no more.
    pub fn begins(&self) {
        self.at_work.store(0, Ordering::SeqCst);
        self.progressed();
        self.beats();
    }

    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::SeqCst)
    }

    /// Gives how many there are with this one.
    pub fn died(&self) -> u64 {
        self.at_work.store(0, Ordering::SeqCst);
        self.deaths.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn forgive(&self) {
        self.deaths.store(0, Ordering::SeqCst);
    }
}

/// The page, which belongs to whoever holds its descriptor.
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

    /// The page of another process, by the file that was inherited from it.
    pub fn of(file: File) -> Result<Self> {
        let mapping = |e: std::io::Error| Error::io("looking at memory that a worker and its guardian share", &e);
        if file.metadata().map_err(mapping)?.len() < size_of::<Pulse>() as u64 {
            return Err(Error::bad_argument("what was inherited is not the memory of a guardian")
                .hint("guardians start workers: `outlier worker serve`"));
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
        // SAFETY: as many bytes are mapped as a `Pulse` has, at the beginning of a page of memory; any bits are a value of
        // it, and it is only changed through atomics, by whatever process.
        unsafe { &*self.memory.as_ptr().cast() }
    }
}

/// Memory as a file that has no name.
fn unnamed() -> std::io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a name that ends with a zero; the descriptor that is made belongs to nobody else.
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
