//! Rows of tables, made from records.

use serde_json::{Map, Value};

use crate::record::plain;

pub(super) type Row = Map<String, Value>;

pub(super) fn object(json: Value) -> Row {
    match json {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

pub(super) fn row(record: &impl serde::Serialize) -> Row {
    object(plain(record))
}
