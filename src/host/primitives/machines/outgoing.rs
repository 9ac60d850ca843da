//! Checks models before they are sent to a machine: their headers show the errors that loading them
//! there would have.

use std::path::Path;

use crate::host::run::context::Context;
use crate::progress::{Event, Progress};
use crate::remote;
use crate::results::FULL_ACTIVATIONS as FULL;
use crate::{hub, weights};

/// Names of weight files.
const WEIGHTS: [&str; 6] = [".safetensors", ".safetensors.index.json", ".bin", ".pth", ".pt", ".gguf"];

/// Reports, for folders of models that are about to be sent, the errors of loading them.
pub(super) fn look_at_models(context: &Context, up: &[String], progress: &dyn Progress) {
    for path in up {
        let folder = remote::to_send("sync", &context.root, path).ok();
        let Some(folder) = folder.filter(|folder| is_model(folder)) else { continue };
        if let Err(error) = hub::at(&folder.display().to_string()).and_then(weights::check_headers) {
            let text = format!("sync: the model {path} cannot be analysed as it is: {}", error.message);
            progress.event(Event::Warning(text));
        }
    }
}

/// True if this is a GGUF file, or a folder that contains a model: analyses and other programs have
/// a config.json without weights, too.
fn is_model(folder: &Path) -> bool {
    if folder.is_file() {
        return folder.extension().is_some_and(|ending| ending == "gguf");
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let weights = |name: String| name != FULL && WEIGHTS.iter().any(|end| name.ends_with(end));
    folder.join("config.json").is_file() && names.into_iter().any(weights)
}
