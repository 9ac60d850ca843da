//! Handles: values of a script that refer to data outside of it, and that read like maps.

use rhai::{Dynamic, Engine};
use serde_json::Value;

use crate::error::Error;
use crate::host::language::bounds::too_large;
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, throw};
use crate::suggest;

/// The part of a handle that scripts can read.
pub(crate) trait Readable {
    const NAME: &'static str;
    /// The field that is left out if it is too large for a script.
    const LARGE: Option<&'static str> = None;
    /// All fields.
    fn json(&self) -> Value;
    /// One field, without the work of the others.
    fn field(&self, name: &str) -> Option<Value>;
}

fn field<T: Readable>(handle: &mut T, name: &str) -> ScriptResult<Dynamic> {
    match handle.field(name) {
        Some(value) => Ok(to_dynamic(&value)),
        None if T::LARGE == Some(name) => Err(too_large("Size of array/BLOB")),
        None => {
            let json = handle.json();
            let names: Vec<_> = json.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            let error = Error::bad_argument(format!("{} has no field `{name}`", T::NAME));
            Err(throw(error.hint(suggest::hint(name, names.iter().copied()))))
        }
    }
}

/// Registers a kind of handle: its fields, its JSON, and its text.
pub(crate) fn register_handle<T: Readable + Clone + Send + Sync + 'static>(engine: &mut Engine) {
    engine.register_type_with_name::<T>(T::NAME);
    engine.register_indexer_get(|handle: &mut T, name: &str| field(handle, name));
    engine.register_fn("to_json", |handle: &mut T| handle.json().to_string());
    engine.register_fn("to_string", |handle: &mut T| format!("{}({})", T::NAME, short(&handle.json())));
    engine.register_fn("to_debug", |handle: &mut T| handle.json().to_string());
}

/// The scalar fields of a handle, for printing.
pub(crate) fn short(json: &Value) -> String {
    let scalar = |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
    let fields = json.as_object().into_iter().flatten().filter(|(_, value)| scalar(value));
    fields.map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
}
