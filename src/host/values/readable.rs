//! Handles: values of a script that refer to data outside of it, and that read like maps.

use rhai::{Array, Dynamic, Engine, Map};
use serde_json::Value;

use crate::error::Error;
use crate::host::language::bounds::too_large;
use crate::host::language::json::{to_dynamic, to_json};
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
    /// The error of reading a field whose value is not known.
    fn refused(&self, _name: &str) -> Option<Error> {
        None
    }
    /// The handle in one line.
    fn line(&self) -> String {
        format!("{}({})", Self::NAME, short(&self.json()))
    }
    /// What `print` shows on a terminal of `width` columns, or without one.
    fn shown(&self, _width: Option<usize>) -> String {
        self.line()
    }
}

fn field<T: Readable>(handle: &mut T, name: &str) -> ScriptResult<Dynamic> {
    if let Some(error) = handle.refused(name) {
        return Err(throw(error));
    }
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
    engine.register_fn("to_string", |handle: &mut T| handle.line());
    engine.register_fn("to_debug", |handle: &mut T| handle.json().to_string());
}

/// Functions of maps that some handles have too.
pub(crate) const OF_MAPS: [&str; 8] = ["!=", "+", "==", "contains", "get", "keys", "len", "values"];

/// Functions of maps, for a handle that reads like one in every way. What a script changes in a
/// field would be lost, so that is an error.
pub(super) fn register_as_map<T: Readable + Clone + Send + Sync + 'static>(engine: &mut Engine) {
    engine.register_indexer_set(|handle: &mut T, name: &str, value: Dynamic| unchanged(handle, name, &value));
    engine.register_fn("keys", |handle: &mut T| {
        map(handle).into_keys().map(|key| key.to_string().into()).collect::<Array>()
    });
    engine.register_fn("values", |handle: &mut T| map(handle).into_values().collect::<Array>());
    engine.register_fn("len", |handle: &mut T| map(handle).len() as i64);
    engine
        .register_fn("contains", |handle: &mut T, name: &str| handle.field(name).is_some_and(|field| !field.is_null()));
    engine.register_fn("get", |handle: &mut T, name: &str| match handle.refused(name) {
        Some(error) => Err(throw(error)),
        None => Ok(handle.field(name).map_or(Dynamic::UNIT, |field| to_dynamic(&field))),
    });
    engine.register_fn("+", |handle: T, more: Map| {
        let mut all = map(&handle);
        all.extend(more);
        all
    });
    engine.register_fn("==", |a: T, b: T| a.json() == b.json());
    engine.register_fn("!=", |a: T, b: T| a.json() != b.json());
}

/// Checks what the language writes back after a call on a field: the field as it was.
fn unchanged<T: Readable>(handle: &T, name: &str, value: &Dynamic) -> ScriptResult<()> {
    if to_json(value).ok() == handle.field(name) {
        return Ok(());
    }
    let kind = T::NAME;
    let error = Error::bad_argument(format!("`{name}` of {kind} is read, not written"));
    Err(throw(error.hint(format!(
        "take a copy of the field and change that, let {name} = x.{name}; or make a map of all: x + #{{ {name}: … }}"
    ))))
}

/// All fields as a map of the script.
fn map<T: Readable>(handle: &T) -> Map {
    to_dynamic(&handle.json()).try_cast().unwrap_or_default()
}

/// The scalar fields of a handle, for printing.
pub(crate) fn short(json: &Value) -> String {
    let scalar = |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
    let fields = json.as_object().into_iter().flatten().filter(|(_, value)| scalar(value));
    fields.map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
}
