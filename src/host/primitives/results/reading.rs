//! Primitives that read files: read_text and read_json, of the project and of what the user allows.

use std::path::PathBuf;
use std::sync::Arc;

use rhai::{Dynamic, Engine};

use crate::error::{Error, Result};
use crate::home;
use crate::host::language::bounds::MAX_STRING;
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::thrown;
use crate::host::run::context::Context;
use crate::host::run::reads;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::outside::{self, complaint, json};
use crate::secret::ledger_name;

/// The largest number of values in a JSON file.
const MAX_VALUES: usize = 1 << 20;

pub(crate) const READ_TEXT: Declared<NoOptions> = Declared::new(
    "read_text",
    &["read_text(path: string) -> string"],
    "The text of a file below results/, or of another one of the project, or where `outlier run --allow-read` says; at most \
     64 MiB of UTF-8.",
    r##"write_text("results/note.md", "# Notes");
print(read_text("results/note.md"));"##,
);

pub(crate) const READ_JSON: Declared<NoOptions> = Declared::new(
    "read_json",
    &["read_json(path: string) -> any"],
    "The value of a JSON file, as write_json has written it; of the same files as read_text.",
    r#"write_json("results/summary.json", #{ models: 7 });
print(read_json("results/summary.json").models);"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(READ_TEXT.name(), move |path: &str| {
        thrown(text(&c, READ_TEXT.name(), path).map(Option::unwrap_or_default))
    });
    let c = context.clone();
    engine.register_fn(READ_JSON.name(), move |path: &str| thrown(read_json(&c, path)));
}

fn read_json(context: &Context, path: &str) -> Result<Dynamic> {
    let Some(text) = text(context, READ_JSON.name(), path)? else { return Ok(Dynamic::UNIT) };
    let corrupt = |said: String| {
        Error::corrupt(format!("read_json: {path}: {said}"))
            .hint("the file is not JSON, or is damaged; read_text reads any text")
    };
    let value = json::from_slice(text.as_bytes(), MAX_VALUES).map_err(|e| corrupt(complaint(e)))?;
    Ok(to_dynamic(&value))
}

/// The text of a file; nothing in a plan for a file that the plan would have written.
fn text(context: &Context, function: &str, path: &str) -> Result<Option<String>> {
    context.acts(function);
    let file = place(context, path);
    reads::allowed(context, function, &file.display().to_string())?;
    if ledger_name(&file) {
        return Err(Error::bad_argument(format!("{function}: {path:?} is the program's list of rented machines"))
            .hint("`outlier gpus` shows it"));
    }
    if let Some(stage) = context.plan().filter(|_| !file.exists())
        && stage.files().iter().any(|written| home::expanded(written) == home::expanded(path))
    {
        stage.note(format!("{path}: it is written by this script, and not there in a plan: nothing is read"));
        return Ok(None);
    }
    let data = outside::read(&file, MAX_STRING as u64)
        .map_err(|e| outside::unreadable(&file, &e, "name a file below results/, such as results/summary.json"))?;
    let text = String::from_utf8(outside::without_bom(data)).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::corrupt(format!("{function}: {path}: byte {at} is not UTF-8 text")).hint("save it as UTF-8")
    })?;
    Ok(Some(text))
}

/// A path is relative to the project, which in a test is not the folder that the program runs in.
fn place(context: &Context, path: &str) -> PathBuf {
    let given = home::expanded(path);
    let below = context.root.join(&given);
    if below.exists() { below } else { given }
}
