//! Contents of a folder in which weights are expected: other formats (`foreign.rs`), adapters,
//! shards without an index. They are not damaged, so each is named with advice.

use std::path::Path;

use serde_json::Value;

use super::gguf_files;
use super::shards::{LAYOUTS, Layout, PYTORCH, SAFETENSORS, only_below};
use super::source::ByteSource;
use crate::error::{Error, Result};
use crate::hub::failure::Failure;
use crate::hub::foreign;
use crate::outside::shown;
use crate::words::counted;

/// The configuration of an adapter of the Python package peft (LoRA and similar).
pub const ADAPTER: &str = "adapter_config.json";

/// Prefixes of files that trainers write and that contain no weights of a model, although their
/// format could.
const NO_WEIGHTS: [&str; 7] =
    ["training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states", "adapter_model"];

/// Prefixes of files with weights of a model. Others may contain anything.
const WEIGHTS: [&str; 4] = ["model", "pytorch_model", "consolidated", "weights"];

/// The reason why a place with these files has no supported weights, if they show it. `repository`
/// is the id of the place if it is on the hub, and `small` reads one of the files.
pub(crate) fn instead(
    place: &str,
    repository: Option<&str>,
    names: &[String],
    small: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Option<Error> {
    if names.iter().any(|name| name == ADAPTER) {
        return Some(adapter(place, small(ADAPTER).ok().flatten()));
    }
    let some = |ending: &dyn Fn(&str) -> bool| -> Vec<&str> {
        let of_trainer = |name: &str| NO_WEIGHTS.iter().any(|begin| name.starts_with(begin));
        let mut found: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| ending(name) && !of_trainer(name)).collect();
        found.sort_unstable();
        found
    };
    let told = |found: &[&str]| match found {
        [one] => shown(one),
        more => format!("{} and {} more", shown(more[0]), more.len() - 1),
    };
    let spelled =
        |right: &'static str| names.iter().find(|name| name.eq_ignore_ascii_case(right)).map(|name| (name, right));
    if let Some((name, right)) = LAYOUTS.iter().flat_map(|layout| [layout.single, layout.index]).find_map(spelled) {
        let (place, missing) = (place.to_string(), format!("neither {}", told_names(&SAFETENSORS)));
        return Some(Error::of(Failure::Capitals { place, found: shown(name), missing, right }));
    }
    for (Layout { single, index }, ending) in [(SAFETENSORS, ".safetensors"), (PYTORCH, ".bin")] {
        let parts = some(&|name| name.ends_with(ending) && is_of_model(name));
        if !parts.is_empty() {
            let (place, found) = (place.to_string(), told(&parts));
            return Some(Error::of(Failure::NoIndex { place, found, single, index }));
        }
    }
    foreign::FORMATS.iter().find_map(|format| {
        let advice = format.as_weights?;
        let found = some(&|name| foreign::of_weights(name).is_some_and(|named| std::ptr::eq(named, format)));
        let each = if found.len() > 1 { "each " } else { "" };
        let message = || format!("{place}: no safetensors weights, but {}, {each}{}", told(&found), format.what);
        let to_name = format.is_gguf().then(|| gguf_files::to_name(repository, &found)).flatten();
        let hint = to_name.unwrap_or_else(|| advice.to_string());
        (!found.is_empty()).then(|| Error::of(Failure::OtherFormat { message: message(), hint }))
    })
}

fn told_names(layout: &Layout) -> String {
    format!("{} nor {}", layout.single, layout.index)
}

/// Why there are no weights in a place with these files, where an index names `count` files and
/// none of them is there: the index is that of an adapter's base model, or nobody has fetched the
/// weights.
pub(crate) fn only_index(
    place: &str,
    index: &str,
    count: usize,
    names: &[String],
    small: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Error {
    if names.iter().any(|name| name == ADAPTER) {
        return adapter(place, small(ADAPTER).ok().flatten());
    }
    let (place, index, named) = (place.to_string(), index.to_string(), counted(count, "file"));
    Error::of(Failure::OnlyIndex { place, index, named })
}

/// True if a file of this name, in a supported format, contains weights of a model.
fn is_of_model(name: &str) -> bool {
    name.contains("-of-") || WEIGHTS.iter().any(|begin| name.starts_with(begin))
}

/// The error of an adapter in place of a model.
fn adapter(place: &str, config: Option<Vec<u8>>) -> Error {
    let config: Option<Value> = config.and_then(|data| serde_json::from_slice(&data).ok());
    let text = |key: &str| config.as_ref().and_then(|config| config[key].as_str()).map(shown);
    let kind = text("peft_type").map_or(String::new(), |kind| format!("{kind}, "));
    let base = text("base_model_name_or_path").map_or(String::new(), |base| format!(" \"{base}\""));
    Error::of(Failure::Adapter { place: place.to_string(), kind: format!("{kind}{ADAPTER}"), base })
}

/// The reason why a source has no `config.json`, if its other files show it: it is another kind of
/// model, or lacks the file.
pub fn without_config(source: &dyn ByteSource) -> Option<Error> {
    let (place, names) = (source.place(), source.listing()?);
    const CONFIG: &str = "config.json";
    if let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case(CONFIG) && *name != CONFIG) {
        let (found, missing) = (shown(name), format!("no {CONFIG}"));
        return Some(Error::of(Failure::Capitals { place, found, missing, right: CONFIG }));
    }
    let is_read = |name: &str| name.ends_with(".safetensors") || name.ends_with(".bin");
    let weights = |name: &&String| is_read(name) && is_of_model(name);
    if !names.iter().any(|name| name == ADAPTER)
        && let Some(weights) = names.iter().find(weights)
    {
        return Some(Error::of(Failure::NoConfig { place, weights: shown(weights) }));
    }
    instead(&place, None, &names, |name| source.small(name)).or_else(|| only_below(&place, &source.models_below()))
}

/// The error of a file, which begins with `head`, given in place of a folder.
pub(crate) fn file_for_folder(path: &str, head: &[u8]) -> Error {
    let format = foreign::given(path, head);
    let is_read = path.ends_with(PYTORCH.single);
    if let Some((format, advice)) = format.and_then(|format| Some((format, format.as_weights?))).filter(|_| !is_read) {
        let message = format!("model \"{path}\": {}; only safetensors are read", format.what);
        return Error::of(Failure::OtherFormat { message, hint: advice.to_string() });
    }
    let what = format.map_or("a file", |format| format.what);
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (path, what, folder) = (path.to_string(), what.to_string(), folder.to_path_buf());
    Error::of(Failure::FileForFolder { path, what, folder })
}
