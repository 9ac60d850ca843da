//! Memory of this process and this machine: the peak of what is resident, giving freed memory back, and what there is.
//!
//! The peak is as the kernel counts it (Linux; elsewhere 0, meaning not measured).

#[cfg(target_os = "linux")]
mod blocks;
mod page;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use page::LARGE;
pub use page::PAGE;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: blocks::Blocks = blocks::Blocks::new();

/// Starts a new measurement: the peak is set back to what is resident now, without what was freed before. Of the many small
/// values that reading a tokenizer makes, most would stay otherwise: the system's allocator gives back only what is freed last.
pub fn reset_peak() {
    // SAFETY: gives back free pages of the allocator; memory in use stays as it is.
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
    // SAFETY: sets parameters of the allocator; no memory is touched.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as i32);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE as i32);
        // One pool for all threads: each of them would keep what it has freed for itself.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// While it lives, large blocks that are freed stay for the next of their size, without raising the peak.
pub struct Kept(());

impl Kept {
    pub fn begin() -> Self {
        #[cfg(target_os = "linux")]
        ALLOCATOR.begin();
        Self(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        ALLOCATOR.end();
    }
}

/// `count` values that the caller will write: zeros, or what was in that memory before. New memory is there when first written
/// to: asking for all pages at once costs half of what it costs to come upon them one by one.
pub fn unset<T: bytemuck::Pod>(count: usize) -> Vec<T> {
    unset_at(count, 0)
}

/// The same, where many begin `phase` bytes (below `PAGE`) behind the beginning of a page if their alignment allows it: as they
/// lie in a file, for reads that put them there without a copy.
pub fn unset_at<T: bytemuck::Pod>(count: usize, phase: usize) -> Vec<T> {
    #[cfg(target_os = "linux")]
    if let Ok(layout) = std::alloc::Layout::array::<T>(count)
        && blocks::is_large(layout.size(), layout.align())
    {
        use std::alloc::handle_alloc_error;
        let phase = if phase.is_multiple_of(layout.align()) { phase } else { 0 };
        let Some((values, new)) = ALLOCATOR.block(layout, phase) else { handle_alloc_error(layout) };
        if new {
            let (begin, whole) = (values.as_ptr().wrapping_sub(phase), (phase + layout.size()) / PAGE * PAGE);
            // SAFETY: whole pages of this block, whose content stays; a kernel that does not know the advice refuses.
            unsafe { libc::madvise(begin.cast(), whole, libc::MADV_POPULATE_WRITE) };
        }
        // SAFETY: a block of the global allocator for this layout; mapped memory always holds something, and all bits are valid.
        return unsafe { Vec::from_raw_parts(values.cast().as_ptr(), count, count) };
    }
    let _ = phase;
    bytemuck::zeroed_vec(count)
}
