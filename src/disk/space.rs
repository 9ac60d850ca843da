//! Free space on the disks of this computer, checked before anything is written.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Checks that the file system of `folder` has `bytes` of free space. If the folder does not exist
/// yet, its nearest existing ancestor counts. A file system that does not report its free space is
/// assumed to have enough.
///
/// # Errors
/// `io` if less is free. The message names the data by `what`.
pub fn check_free_space(folder: &Path, bytes: u64, what: &str) -> Result<()> {
    match free(folder) {
        Some(free) if free < bytes => Err(Error::new(
            Kind::Io,
            format!(
                "{}: the disk is full, {what} does not fit: it takes {}, {} are free",
                folder.display(),
                human_size(bytes),
                human_size(free)
            ),
        )),
        _ => Ok(()),
    }
}

fn free(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let path = CString::new(there.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path ends with NUL, and the call fills the structure if it succeeds.
    let told = unsafe {
        let mut told: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut told) == 0).then_some(told)
    }?;
    #[allow(clippy::unnecessary_cast)] // these fields are narrower on other systems
    let (blocks, bytes) = (told.f_bavail as u64, told.f_frsize as u64);
    // Some file systems do not count their blocks.
    (told.f_blocks > 0).then(|| blocks.saturating_mul(bytes))
}

/// A size in bytes as text for people, in decimal units.
pub fn human_size(bytes: u64) -> String {
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
        let error = check_free_space(Path::new("no/such/folder"), u64::MAX, "x").unwrap_err();
        assert!(error.message.contains("x does not fit: it takes"), "{}", error.message);
        check_free_space(Path::new(""), 1, "x").unwrap();
        assert!(free(Path::new(".")).unwrap() > 0);
        assert_eq!(
            [human_size(62_000), human_size(62_300_000), human_size(1_540_000_000)],
            ["62 kB", "62 MB", "1.5 GB"]
        );
    }
}
