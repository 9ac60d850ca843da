//! Conversion between JSON and values of scripts.

use rhai::Dynamic;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::record::{number, plain};

/// JSON as a value of scripts.
pub(crate) fn to_dynamic(json: &Value) -> Dynamic {
    of_json(json, &|text| text.to_string().into())
}

/// A record as a value of scripts.
pub(crate) fn record_to_dynamic<T: Serialize>(record: &T) -> Dynamic {
    to_dynamic(&plain(record))
}

/// The same for a record without texts: the texts for infinities and NaN become floats.
pub(crate) fn numbers_to_dynamic(json: &Value) -> Dynamic {
    of_json(json, &|text| number::named(text).map_or_else(|| text.to_string().into(), Dynamic::from))
}

fn of_json(json: &Value, of_text: &dyn Fn(&str) -> Dynamic) -> Dynamic {
    match json {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => of_text(text),
        Value::Array(items) => items.iter().map(|item| of_json(item, of_text)).collect::<rhai::Array>().into(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (key.as_str().into(), of_json(value, of_text));
            let map: rhai::Map = map.iter().map(entry).collect();
            map.into()
        }
    }
}

/// A plain value of scripts as JSON. A handle is an error.
pub(crate) fn to_json(value: &Dynamic) -> Result<Value> {
    to_json_with(value, &|_| None)
}

/// A value of scripts as JSON, with the JSON of handles from `of_handle`.
pub(crate) fn to_json_with(value: &Dynamic, of_handle: &dyn Fn(&Dynamic) -> Option<Value>) -> Result<Value> {
    let to_json = |value: &Dynamic| to_json_with(value, of_handle);
    let bad = |what: String| Error::bad_argument(format!("{what} cannot be written as JSON"));
    if let Some(map) = value.read_lock::<rhai::Map>() {
        return map.iter().map(|(key, value)| Ok((key.to_string(), to_json(value)?))).collect();
    }
    if let Some(items) = value.read_lock::<rhai::Array>() {
        return items.iter().map(to_json).collect();
    }
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(flag.into());
    }
    if let Ok(whole) = value.as_int() {
        return Ok(whole.into());
    }
    if let Ok(number) = value.as_float() {
        return serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(|| bad(number.to_string()));
    }
    if let Ok(text) = value.clone().into_string() {
        return Ok(text.into());
    }
    of_handle(value).ok_or_else(|| bad(format!("a value of type {}", value.type_name())))
}
