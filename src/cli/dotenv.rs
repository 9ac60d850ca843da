//! Reads two secrets from `./.env`, and nothing else.
//!
//! A file in the working folder may have come with the folder, from anybody. It is therefore read
//! only if no other user can have written it, only in this folder and not in those above, and only
//! for keys: it cannot choose the addresses to which they are sent. The values do not enter the
//! environment, which child processes inherit.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use crate::home::own_user;
use crate::outside::without_bom;
use crate::plain::plain;
use crate::progress::note;
use crate::secret::{self, Secret};

const NAME: &str = ".env";
/// The only variables that are read from the file.
const KEYS: &[&str] = &["HF_TOKEN", "RUNPOD_API_KEY"];
const MOST_BYTES: u64 = 64 << 10;

/// Reads the file, if there is one. Environment variables take precedence. Ignored variables are
/// reported.
pub(super) fn read() {
    match text() {
        Ok(None) => (),
        Ok(Some((text, others_read))) => {
            if keep(&text) && others_read {
                note(&format!("{NAME} holds keys, and others on this machine may read it: `chmod 600 {NAME}`"));
            }
        }
        Err(problem) => note(&format!("{NAME} is not read: {problem}")),
    }
}

/// Returns the text of the file and whether others may read it, or None if there is no file.
///
/// # Errors
/// The reason for which the file is not read, and the correction.
fn text() -> Result<Option<(String, bool)>, String> {
    // These flags keep a pipe of this name from blocking.
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(NAME);
    let file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err("it is a symbolic link; put the file itself here, or set the variables".to_string());
        }
        file => file.map_err(|error| error.to_string())?,
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    match () {
        () if !metadata.is_file() => return Err("it is not a file; remove it, or set the variables".to_string()),
        () if metadata.uid() != own_user() => {
            return Err("it belongs to another user; write one of your own, or set the variables".to_string());
        }
        () if metadata.mode() & 0o022 != 0 => {
            return Err("others may write to it; look at what it says and do `chmod 600 .env`".to_string());
        }
        () => (),
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it is longer than {} KB; keep only keys in it", MOST_BYTES >> 10));
    }
    let text = String::from_utf8(without_bom(bytes)).map_err(|_| "it is not text in UTF-8".to_string())?;
    Ok(Some((text, metadata.mode() & 0o044 != 0)))
}

/// Keeps the secrets in the text. Returns whether there are any.
fn keep(text: &str) -> bool {
    let (mut secrets, mut others) = (Vec::new(), Vec::new());
    for (name, value) in entries(text) {
        match (KEYS.contains(&name), Secret::new(value)) {
            (true, Some(secret)) => {
                // If a variable is given several times, the last one counts.
                secrets.retain(|(other, _)| other != name);
                secrets.push((name.to_string(), secret));
            }
            (false, Some(_)) if concerns_us(name) && !others.contains(&name) => others.push(name),
            _ => (),
        }
    }
    let any = !secrets.is_empty();
    secret::keep(secrets);
    if !others.is_empty() {
        let (names, keys) = (plain(&others.join(", "), 200), KEYS.join(" and "));
        note(&format!("{NAME} sets {names}, which is not read from it: only {keys} are; set it in the environment"));
    }
    any
}

/// Returns whether a variable would have an effect on this program if it were in the environment.
fn concerns_us(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let begins = |prefix: &&str| upper.starts_with(prefix);
    upper.ends_with("_PROXY") || ["HF_", "HUGGING", "RUNPOD_", "OUTLIER_", "XDG_", "TRANSFORMERS_"].iter().any(begins)
}

/// Returns the names and values of lines `NAME=value` or `export NAME="value"`. Other lines are
/// skipped. Nothing in a value is expanded, since a `$` may be part of a key.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.trim_start_matches('\u{feff}').lines().filter_map(|line| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let quoted = |quote: char| Some(value.strip_prefix(quote)?.split_once(quote)?.0);
        let bare = || value.split_once(" #").map_or(value, |(value, _)| value.trim_end());
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or_else(bare);
        (!name.is_empty() && !name.starts_with('#')).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_usual_forms() {
        let text =
            "\u{feff}# HF_TOKEN=no\r\nHF_TOKEN = a$b#c # said\r\nexport X='q # r' # s\n\nY=\"z\"\nbad line\n =5\nZ=\n";
        let all: Vec<_> = entries(text).collect();
        assert_eq!(all, [("HF_TOKEN", "a$b#c"), ("X", "q # r"), ("Y", "z"), ("Z", "")]);
    }
}
