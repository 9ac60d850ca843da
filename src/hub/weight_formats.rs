//! What stands where safetensors weights are looked for: other formats, adapters, Git LFS pointers. None of them is damaged, so
//! each is called by its name, with what to do.

use std::path::Path;

use serde_json::Value;

use super::shards::{INDEX, SINGLE};
use super::source::ByteSource;
use crate::error::{Error, Result};
use crate::outside::{lfs_pointer, shown};

/// Describes an adapter of the Python package peft (LoRA and its relatives).
pub const ADAPTER: &str = "adapter_config.json";

/// A format of weights, the endings of its files, and how a model in it becomes one in safetensors.
struct Format {
    name: &'static str,
    endings: &'static [&'static str],
    advice: &'static str,
}

const WITH_TRANSFORMERS: &str = "convert them in Python: AutoModelForCausalLM.from_pretrained(SOURCE).save_pretrained(FOLDER) writes \
                                 safetensors; or look for a copy of this model that has them";
const ORIGINAL_RELEASE: &str =
    "look for this model's release in the layout of Hugging Face transformers, with config.json and safetensors files";

const FORMATS: &[Format] = &[
    Format { name: "PyTorch's pickle format", endings: &[".bin", ".pt", ".pth", ".ckpt"], advice: WITH_TRANSFORMERS },
    Format {
        name: "GGUF, the format of llama.cpp",
        endings: &[".gguf", ".ggml"],
        advice: "such files are mostly quantised; use the model they were made from, whose id the model card names, as safetensors in \
                 BF16, F16 or F32",
    },
    Format { name: "the format of Flax", endings: &[".msgpack"], advice: ORIGINAL_RELEASE },
    Format { name: "the format of TensorFlow and Keras", endings: &[".h5", ".keras", ".pb"], advice: ORIGINAL_RELEASE },
    Format { name: "ONNX", endings: &[".onnx", ".onnx_data"], advice: ORIGINAL_RELEASE },
    Format { name: "NumPy's format", endings: &[".npz"], advice: ORIGINAL_RELEASE },
    Format {
        name: "a format for running models on devices",
        endings: &[".tflite", ".mlmodel", ".engine", ".litertlm", ".nemo", ".ot"],
        advice: ORIGINAL_RELEASE,
    },
];

/// How files of trainers begin that hold no weights of a model although their format could.
const NO_WEIGHTS: [&str; 7] =
    ["training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states", "adapter_model"];

/// How safetensors files begin that hold weights of a model; others may hold anything.
const WEIGHTS: [&str; 4] = ["model", "pytorch_model", "consolidated", "weights"];

/// What files begin with that are of another format than their name says.
const CONTENTS: [(&[u8], &str); 4] = [
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"PK\x03\x04", "a ZIP archive, as PyTorch writes its .bin and .pth files"),
    (b"\x80\x02", "a Python pickle, as PyTorch writes its .bin files"),
    (b"\x1f\x8b", "a gzip file"),
];

/// Why there are no weights to read in a place with these files, where they say so. `small` reads one of them.
pub fn instead(place: &str, names: &[String], small: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Option<Error> {
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
    let safetensors = some(&|name| name.ends_with(".safetensors") && is_of_model(name));
    if !safetensors.is_empty() {
        let message = format!("{place}: {}, but neither {SINGLE} nor {INDEX}", told(&safetensors));
        return Some(Error::not_found(message).hint(format!(
            "fetch {INDEX}, which says that these files belong together; a single file of weights must be called {SINGLE}"
        )));
    }
    FORMATS.iter().find_map(|format| {
        let found = some(&|name| format.endings.iter().any(|ending| name.ends_with(ending)));
        let message =
            || format!("{place}: the weights are in {} ({}); only safetensors are read", format.name, told(&found));
        (!found.is_empty()).then(|| Error::unsupported(message()).hint(format.advice))
    })
}

/// Whether a safetensors file of this name holds weights of a model.
fn is_of_model(name: &str) -> bool {
    name.contains("-of-") || WEIGHTS.iter().any(|begin| name.starts_with(begin))
}

/// The error of an adapter in place of a model.
fn adapter(place: &str, config: Option<Vec<u8>>) -> Error {
    let config: Option<Value> = config.and_then(|data| serde_json::from_slice(&data).ok());
    let text = |key: &str| config.as_ref().and_then(|config| config[key].as_str()).map(shown);
    let kind = text("peft_type").map_or(String::new(), |kind| format!("{kind}, "));
    let base = text("base_model_name_or_path").map_or(String::new(), |base| format!(" \"{base}\""));
    Error::unsupported(format!("{place}: an adapter ({kind}{ADAPTER}) for the model{base}, not a model by itself")).hint(
        "merge it into its model in Python, with peft: AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload()\
         .save_pretrained(FOLDER), and load that folder; or load the model without it",
    )
}

/// Why a source has no `config.json`, where its other files say so: it is no model of this kind, or a model that lacks it.
pub fn without_config(source: &dyn ByteSource) -> Option<Error> {
    let (place, names) = (source.place(), source.listing()?);
    let weights = |name: &&String| name.ends_with(".safetensors") && (is_of_model(name) || *name == SINGLE);
    if !names.iter().any(|name| name == ADAPTER)
        && let Some(weights) = names.iter().find(weights)
    {
        return Some(
            Error::not_found(format!("{place}: config.json is missing beside {}", shown(weights)))
                .hint("it says what model the weights are of: fetch it from where they came from, or write it with save_pretrained"),
        );
    }
    instead(&place, &names, |name| source.small(name))
}

/// The error of a file given where a folder must be.
pub fn file_for_folder(path: &str) -> Error {
    let format = FORMATS.iter().find(|format| format.endings.iter().any(|ending| path.ends_with(ending)));
    if let Some(format) = format {
        let message = format!("model \"{path}\": a file in {}; only safetensors are read", format.name);
        return Error::unsupported(message).hint(format.advice);
    }
    let what = if path.ends_with(".safetensors") { "a file of weights" } else { "a file" };
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (message, folder) = (format!("model \"{path}\": {what}, not the folder of a model"), folder.display());
    Error::not_found(message).hint(format!("give the folder it is in, with config.json: load_model(\"{folder}\")"))
}

/// The error of a Git LFS pointer in place of `file`; None where `data` is something else.
pub fn pointer(file: &str, data: &[u8]) -> Option<Error> {
    let bytes = lfs_pointer(data)?;
    let message = format!("reading {file}: a Git LFS pointer to the file of {bytes} bytes, which has not been fetched");
    Some(Error::not_found(message).hint(
        "run `git lfs install` and `git lfs pull` where it was cloned, or fetch the file itself, with `hf download` for instance",
    ))
}

/// What a file of weights is that begins so and is no safetensors file.
pub fn other_content(begin: &[u8]) -> Option<&'static str> {
    CONTENTS.iter().find(|(mark, _)| begin.starts_with(mark)).map(|(_, name)| *name)
}
