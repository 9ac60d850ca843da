//! Peak resident memory of this process, as the kernel counts it (Linux; elsewhere 0, meaning not measured).

/// Starts a new measurement: the peak is set back to what is resident now.
pub fn reset_peak() {
    // Value 5 resets VmHWM: proc(5), /proc/pid/clear_refs. Where it is refused the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Peak resident bytes since the last reset.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
