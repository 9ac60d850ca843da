//! Whether something fits on a disk of this computer, before the first byte of it is written.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Looks whether `bytes` more fit into `folder`; the nearest folder above it counts where it is not there yet. A file system
/// that does not tell is believed to have room.
///
/// # Errors
/// Less is free; `what` is for the message.
pub fn check_room(folder: &Path, bytes: u64, what: &str) -> Result<()> {
    match free(folder) {
        Some(free) if free < bytes => Err(Error::new(
            Kind::Io,
            format!(
                "{}: the disk is full, {what} does not fit: it takes {}, {} are free",
                folder.display(),
                size(bytes),
                size(free)
            ),
        )),
        _ => Ok(()),
    }
}

fn free(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let path = CString::new(there.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path ends with 0, and the structure is filled where the call succeeds.
    let told = unsafe {
        let mut told: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut told) == 0).then_some(told)
    }?;
    #[allow(clippy::unnecessary_cast)] // narrower on other systems
    let (blocks, bytes) = (told.f_bavail as u64, told.f_frsize as u64);
    // Some file systems have no count of their blocks.
    (told.f_blocks > 0).then(|| blocks.saturating_mul(bytes))
}

/// Bytes in decimal units, for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_before_it_is_written() {
        let error = check_room(Path::new("no/such/folder"), u64::MAX, "x").unwrap_err();
        assert!(error.message.contains("x does not fit: it takes"), "{}", error.message);
        check_room(Path::new(""), 1, "x").unwrap();
        assert!(free(Path::new(".")).unwrap() > 0);
        assert_eq!([size(62_000), size(62_300_000), size(1_540_000_000)], ["62 kB", "62 MB", "1.5 GB"]);
    }
}
