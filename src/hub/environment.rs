//! The environment's settings for the hub: endpoint, token, time-out, offline mode, and the
//! locations of caches. Names and meanings are those of the Python package huggingface_hub.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use crate::outside;
use crate::secret::{self, Secret};

/// A connection without a byte for this long has stalled. `HF_HUB_DOWNLOAD_TIMEOUT`, in seconds,
/// changes it.
const STALL: Duration = Duration::from_secs(10);

/// The largest token file in bytes.
const TOKEN_FILE: u64 = 64 << 10;
/// The message if a token is not sent, and what to do.
pub(super) const UNCOVERED: &str = "no token is sent over plain http to another computer";
pub(super) const COVER: &str = "give HF_ENDPOINT an address that begins with https://";

/// The token that a client on another computer has given to this process.
static TOKEN: Mutex<Option<Secret>> = Mutex::new(None);

/// Sets the token for all later requests.
pub fn use_token(token: Option<Secret>) {
    *TOKEN.lock().expect("no panic under this lock") = token;
}

/// The token given to this process.
pub(super) fn given_token() -> Option<Secret> {
    TOKEN.lock().expect("no panic under this lock").clone()
}

/// The variables that may contain a token, in their order of precedence.
const VARIABLES: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// The token of this machine's user, to be passed to another machine: `HF_TOKEN`, then the file of
/// `hf auth login`.
pub fn own_token() -> Option<Secret> {
    let file = || folder("HF_TOKEN_PATH").or(home().map(|home| home.join("token")));
    let stored = || {
        let text = outside::read(&file()?, TOKEN_FILE).ok()?;
        Secret::new(std::str::from_utf8(&text).ok()?)
    };
    VARIABLES.into_iter().find_map(secret::named).or_else(stored)
}

/// The token to use. A stored one is not sent if the user has disabled that.
pub(super) fn token() -> Option<Secret> {
    let named = VARIABLES.iter().any(|name| std::env::var_os(name).is_some() || secret::named(name).is_some());
    let own = || if flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") && !named { None } else { own_token() };
    given_token().or_else(own)
}

/// The token for requests. None if it would be sent unencrypted over a network.
pub(super) fn token_for_endpoint() -> Option<Secret> {
    token().filter(|_| secret::may_travel(&endpoint()))
}

/// True if there is a token that is not sent.
pub(super) fn withholds() -> bool {
    !secret::may_travel(&endpoint()) && token().is_some()
}

/// The hub's address, without a slash at the end.
pub(super) fn endpoint() -> String {
    let given = std::env::var("HF_ENDPOINT").ok().filter(|text| !text.is_empty());
    given.unwrap_or_else(|| "https://huggingface.co".to_string()).trim_end_matches('/').to_string()
}

/// The variables for offline mode, in their order of precedence.
const OFFLINE: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

/// True in offline mode.
pub(super) fn offline() -> bool {
    flag(offline_by())
}

/// The variable that determines offline mode: the first one that is set.
pub(super) fn offline_by() -> &'static str {
    OFFLINE.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())).unwrap_or(OFFLINE[0])
}

pub(super) fn stall_timeout() -> Duration {
    let seconds = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok().and_then(|text| text.parse::<f64>().ok());
    seconds.filter(|seconds| *seconds > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(STALL)
}

/// The folder that Hugging Face's tools share.
fn home() -> Option<PathBuf> {
    folder("HF_HOME").or_else(|| caches().map(|caches| caches.join("huggingface")))
}

/// The cache of repositories.
pub(super) fn hub_cache() -> Option<PathBuf> {
    let named = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
    named.or_else(|| home().map(|home| home.join("hub")))
}

/// The user's folder for caches.
pub(super) fn caches() -> Option<PathBuf> {
    folder("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
}

fn flag(name: &str) -> bool {
    let value = std::env::var(name).unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// A folder in a variable. `~` is the user's home, and variables in it are expanded.
fn folder(variable: &str) -> Option<PathBuf> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
    let path = crate::home::expanded(value).into_os_string().into_string().ok()?;
    Some(with_variables(&path, |name| std::env::var(name).ok()).into())
}

/// Expands `$NAME` and `${NAME}`; unset variables stay as they are. As Python's
/// `os.path.expandvars`, it does not expand the values again.
fn with_variables(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once('$') {
        replaced += before;
        let word = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
        let braces = behind.strip_prefix('{').and_then(|inner| inner.find('}')).map(|end| (&behind[1..=end], end + 2));
        let (name, length) = braces.unwrap_or((&behind[..word], word));
        replaced += &value(name).unwrap_or_else(|| format!("${}", &behind[..length]));
        rest = &behind[length..];
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_paths_are_replaced_as_python_does() {
        // These are the results of `os.path.expandvars` with A=a, B_1=$A and an empty C.
        let value = |name: &str| match name {
            "A" => Some("a".to_string()),
            "B_1" => Some("$A".to_string()),
            "C" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("$A/x", "a/x"),
            ("/x/${A}y/$B_1", "/x/ay/$A"),
            ("$C/x", "/x"),
            ("$D/${D}/x", "$D/${D}/x"),
            ("$AA", "$AA"),
            ("$A$A", "aa"),
            ("$$A", "$a"),
            ("${A", "${A"),
            ("${}$", "${}$"),
            ("a$", "a$"),
            ("$\u{e9}", "$\u{e9}"),
            ("${$A}", "${$A}"),
        ] {
            assert_eq!(with_variables(text, value), expected, "{text}");
        }
    }
}
