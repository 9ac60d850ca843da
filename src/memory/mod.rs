//! Memory of this process and of this machine: resident memory and its peak, the return of freed
//! memory, and the machine's total and available memory.
//!
//! The peak is the kernel's count on Linux. On other systems it is 0, which means that it was not
//! measured.

mod allocator;
#[cfg(target_os = "linux")]
mod caching;
mod page;

pub use allocator::{Allocator, RetainPages, uninit_vec, uninit_vec_at};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use page::{LARGE, PAGE};

/// Starts a new measurement: the peak is set to the bytes that are resident now. Freed memory is
/// returned to the system before. Otherwise most of the many small values that the reading of a
/// tokenizer makes would stay resident, because the system's allocator returns only the end of its
/// heap.
pub fn reset_peak() {
    // SAFETY: it returns free pages of the system's allocator, and memory in use is not touched.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
    // Value 5 resets VmHWM: proc(5), /proc/pid/clear_refs. Where the system refuses it, the peak is
    // that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The machine's total memory and the memory that is available to programs, in bytes. None on
/// systems other than Linux.
pub fn total_and_available() -> Option<(u64, u64)> {
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

/// Resident bytes of this process without mapped files and shared memory. None on systems other
/// than Linux.
pub fn resident_private() -> Option<u64> {
    // proc(5): the fields are size, resident and shared, in pages.
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * PAGE as u64)
}

/// Bytes of address space that this process may still take, where `ulimit -v` limits it. None
/// without a limit, and on systems other than Linux.
pub fn address_space_left() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call fills the buffer.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    if !known || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages = text.split(' ').next()?.parse::<u64>().ok()?;
    Some(limit.rlim_cur.saturating_sub(pages * PAGE as u64))
}

/// Makes the system's allocator return freed memory to the system. Without this it raises its own
/// threshold up to 32 MB and retains everything below. Call this once at the start.
pub fn return_freed_memory() {
    // SAFETY: it sets parameters of the system's allocator and touches no memory.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as i32);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE as i32);
        // All threads share one arena: each arena retains its own freed memory.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
