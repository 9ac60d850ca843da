//! Memory of this process and this machine: the peak of what is resident, giving freed memory back, and what there is.
//!
//! The peak is as the kernel counts it (Linux; elsewhere 0, meaning not measured).

mod allocator;
#[cfg(target_os = "linux")]
mod blocks;
mod page;

pub use allocator::{Allocator, Kept, unset, unset_at};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use page::LARGE;
pub use page::PAGE;

/// Starts a new measurement: the peak is set back to what is resident now, without what was freed before. Of the many small
/// values that reading a tokenizer makes, most would stay otherwise: the system's allocator gives back only what is freed last.
pub fn reset_peak() {
    // SAFETY: it gives back free pages of the system's allocator; memory in use stays as it is.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
    // Value 5 resets VmHWM: proc(5), /proc/pid/clear_refs. Where it is refused the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Bytes of memory this machine has, and those that programs could still take (Linux; None elsewhere).
pub fn of_machine() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((bytes("MemTotal:")?, bytes("MemAvailable:")?))
}

/// Peak resident bytes since the last reset.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes that this process has for itself now, without what it reads from files by mapping them (Linux; None elsewhere).
pub fn own() -> Option<u64> {
    // proc(5): size, resident and shared, in pages.
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * PAGE as u64)
}

/// Keeps freed memory from staying resident: without it the system's allocator raises its own limit to 32 MB and keeps
/// everything below. Call once, at the start.
pub fn return_freed_memory() {
    // SAFETY: it sets parameters of the system's allocator; no memory is touched.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as i32);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE as i32);
        // One pool for all threads: each of them would keep what it has freed for itself.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
