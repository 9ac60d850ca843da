//! Handles input that may be malformed or malicious: opens regular files only and limits their
//! size, catches panics of libraries that parse them, and shortens quotations in messages.

pub mod json;
pub mod safetensors;
pub mod syntax;
pub mod tls;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use crate::error::Error;
use crate::plain::plain;

/// The greatest number of characters that a message quotes from a file or a service: enough to
/// recognise a mistake, too few to disclose a file.
const SHOWN: usize = 40;
/// The greatest number of characters of a library's message about a file.
const SAID: usize = 160;

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the system. A folder, a pipe or a device is refused, since reading it would block or
/// never end.
pub fn open(path: &Path) -> io::Result<File> {
    regular(&path.metadata()?)?;
    // The file may have been replaced since it was checked, and opening a pipe would wait for a
    // writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => Ok(()),
        (_, true) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "a pipe, socket or device, not a regular file")),
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Those of `open`, and one for a larger file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = || {
        let told = format!("larger than the {limit} bytes that are read of such a file");
        io::Error::new(ErrorKind::FileTooLarge, told)
    };
    let bytes = file.metadata()?.len();
    if bytes > limit {
        return Err(too_large());
    }
    // The file may grow while it is read.
    let mut data = Vec::with_capacity(bytes as usize);
    file.take(limit + 1).read_to_end(&mut data)?;
    if data.len() as u64 > limit { Err(too_large()) } else { Ok(data) }
}

/// The error of a file that could not be opened or read: what the system says, and what to do about
/// it. `otherwise` is the hint where nothing of the name is there, and where the system has a
/// reason of another kind.
pub fn unreadable(path: &Path, error: &io::Error, otherwise: &str) -> Error {
    let target = || path.read_link().ok().map(|target| plain(&target.display().to_string(), 200));
    let loops = error.raw_os_error() == Some(libc::ELOOP);
    let hint = match (error.kind(), target()) {
        (ErrorKind::PermissionDenied, _) => {
            "it is there, but this user may not read it: `chmod u+r FILE`, and `chmod u+x` for its folders, or ask its owner".into()
        }
        (ErrorKind::IsADirectory, _) => "a folder has the name of the file: name or put the file itself there".into(),
        (ErrorKind::InvalidInput, _) => "what is read must be a regular file: write it to one first".into(),
        _ if loops => "links lead back to themselves: put the file itself in their place".into(),
        (ErrorKind::NotFound, Some(target)) => {
            format!("it is a link to {target}, where nothing is: fetch the file again, or correct the link")
        }
        _ => otherwise.to_string(),
    };
    Error::io(format!("reading {}", path.display()), error).or_hint(hint)
}

/// The first bytes of a regular file, `limit` of them at most.
///
/// # Errors
/// Those of `open`.
pub fn beginning(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    open(path)?.take(limit).read_to_end(&mut data)?;
    Ok(data)
}

/// The byte order mark with which some programs begin text files in UTF-8. It is no part of the
/// text.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Removes a leading byte order mark from a text.
pub fn without_bom(mut text: Vec<u8>) -> Vec<u8> {
    if text.starts_with(BOM) {
        text.drain(..BOM.len());
    }
    text
}

thread_local! {
    /// Whether a panic of this thread is caught by `guarded`, which reports it as an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library on untrusted data. If it panics, nothing is printed, and the panic's message is
/// the error.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                usual(panic);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(outer);
    outcome.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or(panic.downcast_ref::<&str>().copied()).map_or("its reader gave up".to_string(), complaint)
    })
}

/// Shortens a quoted text and puts it on one line.
pub fn shown(text: &str) -> String {
    plain(text, SHOWN)
}

/// Shortens a library's message about a file, which may quote the file, and puts it on one line.
pub fn complaint(said: impl ToString) -> String {
    plain(&said.to_string(), SAID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_not_be_read_is_not_called_missing() {
        let told = |kind: ErrorKind| unreadable(Path::new("a/b"), &kind.into(), "fetch it");
        let denied = told(ErrorKind::PermissionDenied);
        assert!(denied.message.starts_with("reading a/b: permission denied"), "{}", denied.message);
        assert!(denied.hint.is_some_and(|hint| hint.contains("this user may not read it")));
        assert_eq!(told(ErrorKind::NotFound).hint.as_deref(), Some("fetch it"));
        assert_eq!(told(ErrorKind::Interrupted).hint.as_deref(), Some("fetch it"));
    }
}
