//! Memory of this process and this machine: the peak of what is resident, giving freed memory back, and what there is.
//!
//! The peak is as the kernel counts it (Linux; elsewhere 0, meaning not measured).

#[cfg(target_os = "linux")]
mod blocks;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: blocks::Blocks = blocks::Blocks::new();

/// Starts a new measurement: the peak is set back to what is resident now.
pub fn reset_peak() {
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

/// Blocks from this size on are mapped by themselves.
const LARGE: usize = 1 << 20;

#[cfg(target_os = "linux")]
const PAGE: usize = 4096;

/// Bytes of freed blocks that are kept for the next of their size, at most: none where the system's allocator has them all.
const IDLE_BYTES: usize = if cfg!(target_os = "linux") { 32 << 20 } else { 0 };

/// Of what is in use, the share that may lie idle beside it.
const IDLE_SHARE: usize = 8;

/// Bytes of freed memory that stay resident beside `used` bytes that are in use, at most: little beside little.
pub const fn idle_bytes(used: usize) -> usize {
    let share = used / IDLE_SHARE;
    if share < IDLE_BYTES { share } else { IDLE_BYTES }
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

/// `count` zeros in memory that is there when first written to: asking for all pages at once costs half of what it costs
/// to come upon them one by one.
pub fn zeroed<T: bytemuck::Zeroable>(count: usize) -> Vec<T> {
    let values = bytemuck::zeroed_vec::<T>(count);
    #[cfg(target_os = "linux")]
    {
        let bytes = count * size_of::<T>();
        let begin = (values.as_ptr() as usize).next_multiple_of(PAGE);
        let end = (values.as_ptr() as usize + bytes) / PAGE * PAGE;
        if bytes >= LARGE {
            // SAFETY: whole pages of this allocation, whose content stays; a kernel that does not know the advice refuses.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_POPULATE_WRITE) };
        }
    }
    values
}
