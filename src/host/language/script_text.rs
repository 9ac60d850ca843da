//! Reads the text of a script or module: bounded, in UTF-8, without a byte order mark and without
//! an interpreter line.

use std::io::{ErrorKind, Read};
use std::path::Path;

use super::bounds::MAX_SCRIPT;
use crate::outside;

/// The text of a script or module, without a byte order mark.
pub(crate) fn text_of(path: &Path) -> std::io::Result<String> {
    text_in(std::fs::File::open(path)?)
}

/// The same for a regular file only, so that no pipe blocks.
pub(crate) fn regular_text(path: &Path) -> std::io::Result<String> {
    text_in(outside::open(path)?)
}

fn text_in(file: std::fs::File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_SCRIPT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SCRIPT {
        return Err(std::io::Error::other("a script may be 4 MiB long"));
    }
    let text = String::from_utf8(outside::without_bom(bytes)).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        std::io::Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })?;
    Ok(without_interpreter(text))
}

/// A first line such as `#!/usr/bin/env -S outlier run` becomes an empty line, so that line numbers
/// stay the same.
fn without_interpreter(text: String) -> String {
    match (text.starts_with("#!"), text.find('\n')) {
        (true, Some(end)) => text[end..].to_string(),
        (true, None) => String::new(),
        (false, _) => text,
    }
}
