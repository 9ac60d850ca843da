//! Texts in JSON: objects with a text under a key, one per line, one after another or in an array,
//! and arrays of strings.

use std::collections::VecDeque;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::failure::TextFailure;
use super::formats::no_column;
use super::json_values::{HINT_ARRAY, Place, Value, without_nan};
use super::texts::not_text;
use crate::error::{Error, Result};
use crate::outside::{shown, syntax};
use crate::record::DEFAULT_COLUMN;

/// Number of objects without the column at the beginning of a file after which it is reported as
/// missing.
const ROWS_WITHOUT: usize = 1000;
/// The largest number of keys of an object that are listed as columns, and their largest depth.
const MAX_KEYS: usize = 64;
const KEYS_DEPTH: usize = 2;

const HINT_LINES: &str =
    "every line is a JSON object such as {\"text\": \"…\"}, or a text in quotes; `column` names another key";

/// The texts in a column of JSON values. Values without one (missing key, null, NaN) are skipped.
pub(crate) struct Texts {
    name: String,
    column: String,
    values: Box<dyn Iterator<Item = Result<Value>> + Send>,
    ready: VecDeque<String>,
    /// Number of objects so far.
    rows: usize,
    /// True if the column has occurred.
    found: bool,
    /// Columns of the first object.
    columns: Vec<String>,
}

impl Texts {
    pub(crate) fn new(name: &str, column: &str, values: impl Iterator<Item = Result<Value>> + Send + 'static) -> Self {
        let (name, column) = (name.to_string(), column.to_string());
        let (ready, columns) = (VecDeque::new(), Vec::new());
        Self { name, column, values: Box::new(values), ready, rows: 0, found: false, columns }
    }

    fn take(&mut self, value: Value) -> Result<()> {
        let hint = if matches!(value.place, Place::Item(_)) { HINT_ARRAY } else { HINT_LINES };
        let (name, place) = (self.name.clone(), value.place.to_string());
        let bad = |place: String, problem: String, hint: &'static str| {
            Error::of(TextFailure::BadRecord { name: name.clone(), place, problem, hint: Some(hint) })
        };
        let damaged = |problem: String| bad(place.clone(), problem, hint);
        let wrong = |e: serde_json::Error| {
            let said = e.to_string();
            let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
            let (what, hint) = match syntax::is_half_a_character(&e) {
                true => (
                    syntax::HALF,
                    "Python writes what was cut within a character so: text.encode(\"utf-16\", \"surrogatepass\")\
                                         .decode(\"utf-16\", \"replace\") repairs it there",
                ),
                false => (what, hint),
            };
            // The parser counts lines from the beginning of the value.
            let (behind, column) = (e.line().saturating_sub(1) as u64, e.column());
            let (place, within) = match value.place {
                Place::Line(line) => (Place::Line(line + behind), String::new()),
                item if behind > 0 => (item, format!(" of its line {}", behind + 1)),
                item => (item, " of it".to_string()),
            };
            bad(place.to_string(), format!("{what} (column {column}{within})"), hint)
        };
        let text = String::from_utf8(value.bytes).map_err(|_| not_text(&self.name))?;
        let no_text = |what: &str| damaged(format!("no text under \"{}\", but {what}", shown(&self.column)));
        if text.trim_start().starts_with('"') {
            if self.column != DEFAULT_COLUMN {
                return Err(
                    no_text("a text without a key").hint("leave `column` out: the texts stand there by themselves")
                );
            }
            self.found = true;
            self.ready.push_back(serde_json::from_str(&text).map_err(wrong)?);
            return Ok(());
        }
        // NaN is not JSON, but Python writes it.
        let found = find(&text, &self.column)
            .or_else(|error| {
                let plain = without_nan(text.as_bytes()).and_then(|plain| String::from_utf8(plain).ok());
                plain.map_or(Err(error), |plain| find(&plain, &self.column))
            })
            .map_err(wrong)?;
        if !text.trim_start().starts_with('{') {
            return match text.trim() == "null" {
                true => Ok(()),
                false => Err(damaged(format!("no object, and so no text under \"{}\"", shown(&self.column)))),
            };
        }
        match found {
            Found::Missing => {
                if self.rows == 0 {
                    self.columns = columns(&text);
                }
                self.rows += 1;
                return if self.found || self.rows < ROWS_WITHOUT { Ok(()) } else { Err(self.no_column()) };
            }
            Found::Null => (),
            Found::Text(text) => self.ready.push_back(text),
            Found::List(texts) | Found::Indexed(texts) if value.alone => self.ready.extend(texts),
            Found::List(_) => {
                return Err(no_text("a list").hint("join the texts of a row into one, or write a row for each"));
            }
            Found::Indexed(_) => return Err(no_text("an object")),
            Found::Other(what) => return Err(no_text(what)),
            Found::Twice => {
                let twice = format!("two texts under \"{}\", in different places", shown(&self.column));
                return Err(damaged(twice).hint(
                    "a point in `column` leads into an object, and is also part of a key here: leave one of the two out, or rename it",
                ));
            }
        }
        self.rows += 1;
        self.found = true;
        Ok(())
    }

    fn no_column(&self) -> Error {
        no_column(&self.name, &self.column, &self.columns)
    }

    fn text(&mut self) -> Result<Option<String>> {
        while self.ready.is_empty() {
            match self.values.next() {
                Some(value) => self.take(value?)?,
                None if self.rows > 0 && !self.found => return Err(self.no_column()),
                None => return Ok(None),
            }
        }
        Ok(self.ready.pop_front())
    }
}

impl Iterator for Texts {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text().transpose()
    }
}

/// The value in a column.
enum Found {
    Missing,
    Null,
    Text(String),
    /// Texts, without nulls.
    List(Vec<String>),
    /// Texts by index, as pandas writes a column.
    Indexed(Vec<String>),
    Other(&'static str),
    /// Something under the column in two places: `{"a.b": …, "a": {"b": …}}`.
    Twice,
}

fn find(text: &str, column: &str) -> serde_json::Result<Found> {
    let mut text = serde_json::Deserializer::from_str(text);
    let found = Field(Some(column)).deserialize(&mut text)?;
    text.end().map(|()| found)
}

/// Finds the value under a key of an object, or under the keys of nested objects with points
/// between them; without a key, the value itself. Other values are skipped.
#[derive(Clone, Copy)]
struct Field<'a>(Option<&'a str>);

impl Field<'_> {
    /// A value that is not an object has no keys.
    fn scalar<E>(self, what: Found) -> std::result::Result<Found, E> {
        Ok(if self.0.is_none() { what } else { Found::Missing })
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> std::result::Result<Found, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Found, A::Error> {
        if self.0.is_none() {
            let (mut texts, mut only) = (Vec::new(), true);
            while map.next_key::<IgnoredAny>()?.is_some() {
                match map.next_value_seed(self)? {
                    Found::Text(text) => texts.push(text),
                    Found::Null => (),
                    _ => only = false,
                }
            }
            return Ok(if only { Found::Indexed(texts) } else { Found::Other("an object") });
        }
        let (mut found, mut under) = (Found::Missing, String::new());
        while let Some(key) = map.next_key::<String>()? {
            let there = match self.0.and_then(|path| path.strip_prefix(key.as_str())) {
                Some("") => map.next_value_seed(Field(None))?,
                Some(rest) if rest.starts_with('.') => map.next_value_seed(Field(Some(&rest[1..])))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            found = match (found, there) {
                (found, Found::Missing) => found,
                // Of a key that stands there twice the last one counts, as in Python.
                (_, there) if under == key => there,
                (Found::Missing | Found::Null, there) => there,
                (found, Found::Null) => found,
                _ => Found::Twice,
            };
            under = key;
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Found, A::Error> {
        let (mut texts, mut missing, mut other) = (Vec::new(), false, false);
        while let Some(item) = items.next_element_seed(self)? {
            match item {
                Found::Text(text) => texts.push(text),
                Found::Null => (),
                Found::Missing => missing = true,
                Found::List(_) | Found::Indexed(_) | Found::Other(_) | Found::Twice => other = true,
            }
        }
        Ok(match (other, missing && texts.is_empty()) {
            (true, _) => Found::Other("a list"),
            (false, true) => Found::Missing,
            (false, false) => Found::List(texts),
        })
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Found, E> {
        self.scalar(Found::Text(text.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Found, E> {
        self.scalar(Found::Other("true or false"))
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Found, E> {
        self.scalar(Found::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Found, E> {
        self.scalar(Found::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Found, E> {
        self.scalar(Found::Other("a number"))
    }

    fn visit_unit<E>(self) -> std::result::Result<Found, E> {
        self.scalar(Found::Null)
    }
}

/// The columns of an object: its keys, and those of nested objects and of lists of objects.
fn columns(text: &str) -> Vec<String> {
    let mut columns = Vec::new();
    let keys = Keys { prefix: String::new(), depth: 0, columns: &mut columns };
    // The object was parsed before.
    let _ = keys.deserialize(&mut serde_json::Deserializer::from_str(text));
    columns
}

struct Keys<'a> {
    prefix: String,
    depth: usize,
    columns: &'a mut Vec<String>,
}

impl Keys<'_> {
    /// A value without keys is itself a column.
    fn column<E>(self) -> std::result::Result<(), E> {
        if self.columns.len() < MAX_KEYS && !self.prefix.is_empty() {
            self.columns.push(self.prefix);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> std::result::Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if self.depth == KEYS_DEPTH {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let prefix = if self.prefix.is_empty() { key } else { format!("{}.{key}", self.prefix) };
            map.next_value_seed(Keys { prefix, depth: self.depth + 1, columns: self.columns })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let before = self.columns.len();
        let first = Keys { prefix: self.prefix.clone(), depth: self.depth, columns: self.columns };
        items.next_element_seed(first)?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        if self.columns.len() == before { self.column() } else { Ok(()) }
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        self.column()
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        self.column()
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        self.column()
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        self.column()
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        self.column()
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        self.column()
    }
}
