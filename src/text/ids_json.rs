//! Reads token ids from a JSON file: an array of arrays, one per sequence. If the file contains
//! something else, the error names it and says what to do.
//!
//! The file may be any file of the user, so a message contains only numbers and the usual key names
//! of ids from it.

use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::hub;
use crate::outside::{self, json, syntax};
use crate::words::counted;

/// The largest JSON file of token ids, in bytes.
const MAX_JSON: u64 = 512 << 20;

const EXPECTED: &str = "expected an array of arrays of token ids, such as [[1, 2], [3, 4]]";
/// The usual names of ids in JSON objects.
const KEYS: [&str; 6] = ["input_ids", "ids", "token_ids", "tokens", "data", "sequences"];
/// Advice for ids in a file of another program.
pub(super) const CONVERT: &str = "write them as JSON, json.dump(array.tolist(), file) in Python, or as safetensors, save_file({\"input_ids\": array}, name)";

/// Where paths of ids begin.
pub(super) const PATHS: &str = "paths given to load_tokens start from the folder the program runs in";

/// Sequences in the file, up to the first that is empty or of another length than those before.
///
/// # Errors
/// The errors of reading the file, and `corrupt` with a description of other contents.
pub(super) fn read(path: &str) -> Result<Vec<Vec<u32>>> {
    let text = outside::read(Path::new(path), MAX_JSON);
    let text = text.map_err(|e| outside::unreadable(Path::new(path), &e, PATHS))?;
    if let Some(error) = hub::pointer(path, &text) {
        return Err(error);
    }
    let text = outside::without_bom(text);
    serde_json::from_slice(&text).map(|Rows(rows)| rows).map_err(|error| {
        let (what, advice) = describe_contents(path, &text, &error);
        let advice = if advice.is_empty() { EXPECTED.to_string() } else { format!("{advice}; {EXPECTED}") };
        Error::corrupt(format!("reading {path}: {what}")).hint(advice)
    })
}

/// Describes the contents of a file without sequences, with advice.
fn describe_contents(path: &str, text: &[u8], error: &serde_json::Error) -> (String, String) {
    if text.get(8) == Some(&b'{') && text[..8].ends_with(&[0; 4]) {
        let advice = "`tensor: \"input_ids\"` says which of its tensors holds the ids";
        return ("this is a safetensors file, and no JSON".to_string(), advice.to_string());
    }
    if let Some(what) = hub::known_as(path, text) {
        return (format!("this is {what}, and no JSON"), CONVERT.to_string());
    }
    let value = match json::from_slice(text, json::LARGE) {
        Ok(value) => value,
        Err(damage) => {
            let lines = || serde_json::Deserializer::from_slice(text).into_iter::<serde::de::IgnoredAny>();
            // The first of several JSON values is complete.
            if lines().next().is_some_and(|first| first.is_ok()) && lines().nth(1).is_some_and(|second| second.is_ok())
            {
                let advice = "one array must hold all of them: `jq -s . FILE > ids.json` makes one of arrays in lines";
                return ("several JSON values one after the other, as in JSON Lines".to_string(), advice.to_string());
            }
            let place =
                || format!("no array of arrays of token ids from line {}, column {} on", error.line(), error.column());
            return (
                syntax::wrong(text, &damage).map_or_else(place, |what| format!("not valid JSON: {what}")),
                String::new(),
            );
        }
    };
    no_sequences(&value).unwrap_or_else(|| ("no array of arrays of token ids".to_string(), String::new()))
}

/// The reason why a value is not an array of arrays of token ids, with advice; None if it is one.
pub fn no_sequences(value: &Value) -> Option<(String, String)> {
    let told = |what: String, advice: &str| Some((what, advice.to_string()));
    let rows = match value {
        Value::Array(rows) => rows,
        Value::Object(map) => {
            let list = |value: &Value| value.as_array().is_some_and(|rows| rows.iter().all(Value::is_array));
            return match KEYS.iter().find(|key| map.get(**key).is_some_and(list)) {
                Some(key) => told(
                    format!("an object, with the list under `{key}`"),
                    &format!("the file must be that list: `jq .{key} FILE > ids.json`"),
                ),
                None => told(
                    format!("an object of {}", counted(map.len(), "key")),
                    "one list must hold the lists of all sequences",
                ),
            };
        }
        other => return told(format!("{}, and no list", kind(other)), ""),
    };
    if !rows.is_empty() && rows.iter().all(Value::is_number) {
        return told("a flat list of numbers".to_string(), "one sequence is a list in the list, [[1, 2, 3]]");
    }
    rows.iter().enumerate().find_map(|(s, row)| match row {
        Value::Array(ids) => ids.iter().enumerate().find_map(|(t, id)| not_an_id(id, s, t)),
        Value::Object(map) => match KEYS.iter().find(|key| map.get(**key).is_some_and(Value::is_array)) {
            Some(key) => told(
                format!("sequence {s} is an object, with the list under `{key}`"),
                &format!("sequences must be lists of ids: `jq '[.[].{key}]' FILE > ids.json`"),
            ),
            None => told(format!("sequence {s} is an object, not a list of ids"), ""),
        },
        other => told(format!("sequence {s} is {}, not a list of ids", kind(other)), ""),
    })
}

/// The reason why the value at position `t` of sequence `s` is not a token id.
fn not_an_id(value: &Value, s: usize, t: usize) -> Option<(String, String)> {
    let place = format!("(sequence {s}, position {t})");
    let told = |what: String, advice: &str| Some((what, advice.to_string()));
    match value {
        Value::Number(number) if number.as_u64().is_some_and(|id| u32::try_from(id).is_ok()) => None,
        Value::Number(number) if number.as_i64().is_some_and(|id| id < 0) => told(
            format!("{number} is no token id {place}"),
            "ids begin with 0; a mark such as -100 or -1 stands for padding: sequences must be complete, cut them to the shortest",
        ),
        Value::Number(number) if number.is_f64() => told(
            format!("{number} is no whole number {place}"),
            "write ids without a decimal point, array.astype(int) in Python",
        ),
        Value::Number(number) => told(format!("{number} is too large for a token id {place}"), ""),
        Value::Array(_) => told(
            format!("a list where an id must be {place}"),
            "the lists are nested too deep: one list of sequences, each a list of ids, is enough (`jq '.[0]' FILE` takes off one level)",
        ),
        Value::String(_) => told(
            format!("a text where an id must be {place}"),
            "ids are numbers without quotes; load_tokens(#{ text: FILE, model: model, … }) makes ids of texts",
        ),
        other => told(format!("{} where an id must be {place}", kind(other)), ""),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Sequences up to and including the first that is empty or differs in length. Those after it
/// cannot be used.
struct Rows(Vec<Vec<u32>>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Sequences;
        impl<'de> Visitor<'de> for Sequences {
            type Value = Rows;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an array of arrays of token ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Rows, A::Error> {
                let mut rows: Vec<Vec<u32>> = Vec::new();
                while let Some(row) = items.next_element::<Vec<u32>>()? {
                    if rows
                        .first()
                        .is_none_or(|first| !first.is_empty() && rows.last().map(Vec::len) == Some(first.len()))
                    {
                        rows.push(row);
                    }
                }
                Ok(Rows(rows))
            }
        }
        from.deserialize_seq(Sequences)
    }
}
