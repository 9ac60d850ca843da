//! The location of the user's RunPod key.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::gpu::failure::Failure;
use crate::outside;
use crate::secret::{self, Secret};

const VARIABLE: &str = "RUNPOD_API_KEY";
/// The largest settings file in bytes.
const SETTINGS: u64 = 64 << 10;

/// `RUNPOD_API_KEY` from the environment or `.env`, then `~/.runpod/config.toml`.
pub(super) fn find() -> Result<Secret> {
    let file = std::env::home_dir().map(|home| home.join(".runpod/config.toml"));
    let key = secret::named(VARIABLE)
        .or_else(|| file.clone().and_then(stored))
        .ok_or_else(|| Error::of(Failure::NoKey { file }))?;
    if key.expose().chars().any(|c| c.is_whitespace() || !c.is_ascii_graphic()) {
        return Err(Error::of(Failure::BadKey));
    }
    Ok(key)
}

/// The tool writes `apikey = "…"`, the Python package a table `[default]` with `api_key = "…"`.
fn stored(file: PathBuf) -> Option<Secret> {
    let text = outside::read(&file, SETTINGS).ok()?;
    let table: toml::Table = std::str::from_utf8(&text).ok()?.parse().ok()?;
    let flat = table.iter().find(|(key, _)| key.eq_ignore_ascii_case("apikey")).map(|(_, value)| value);
    let value = flat.or_else(|| table.get("default")?.get("api_key"))?;
    Secret::new(value.as_str()?)
}
