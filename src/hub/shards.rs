//! Which safetensors files a model has: those its index names, or the single one.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

pub const INDEX: &str = "model.safetensors.index.json";
pub const SINGLE: &str = "model.safetensors";

/// The files that an index names, sorted; `place` is where the index was found.
pub fn names(index: &[u8], place: &str) -> Result<Vec<String>> {
    let damaged = |problem: String| {
        Error::corrupt(format!("reading {place}/{INDEX}: {problem}"))
            .hint("is this model complete? download the file again")
    };
    let index: serde_json::Value =
        serde_json::from_slice(index).map_err(|e| damaged(format!("not valid JSON: {e}")))?;
    let map = index["weight_map"].as_object();
    let map = map.ok_or_else(|| damaged("`weight_map` is missing".to_string()))?;
    let names: BTreeSet<_> = map.values().filter_map(|value| value.as_str().map(str::to_string)).collect();
    // A name with a path could lead out of the folder.
    match names.iter().find(|name| name.contains('/') || name.starts_with('.')) {
        Some(name) => Err(damaged(format!("`{name}` is not a file of this model"))),
        None => Ok(names.into_iter().collect()),
    }
}
