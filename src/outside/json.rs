//! Untrusted JSON that is parsed into a tree of any shape. A value takes some hundred times the
//! memory of its text (`{},{},…`), so the number of values is limited as well as that of bytes.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The greatest number of values in a small file, such as a configuration, or in a service's
/// answer. They take some tens of megabytes of memory.
pub const SMALL: usize = 100_000;
/// The greatest number of values in the largest files: tokenizers and headers of the largest
/// models.
pub const LARGE: usize = 8_000_000;

/// Parses a text of at most `most` values. A key and its value count as one.
///
/// # Errors
/// The text is not JSON or has more values; the message tells which.
pub fn from_slice(text: &[u8], most: usize) -> serde_json::Result<Value> {
    let left = Cell::new(most);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Tree { left: &left, most }.deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

/// The non-finite floats that Python's `json` writes although JSON does not have them.
pub const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Replaces all `NO_NUMBERS` outside of strings by the results of `instead`. Numbers beyond the
/// range of f64, such as 1e999, are infinities, as in Python. Returns `None` if there are none of
/// either.
pub fn replaced_no_numbers(text: &[u8], instead: impl Fn(&str) -> String) -> Option<Vec<u8>> {
    let (mut replaced, mut copied, mut at, mut in_text) = (Vec::new(), 0, 0, false);
    while at < text.len() {
        let word = NO_NUMBERS.into_iter().find(|word| !in_text && text[at..].starts_with(word.as_bytes()));
        let found = word.map(|word| (word, word.len())).or_else(|| infinity(&text[at..]).filter(|_| !in_text));
        match (found, text[at]) {
            (Some((word, length)), _) => {
                replaced.extend_from_slice(&text[copied..at]);
                replaced.extend_from_slice(instead(word).as_bytes());
                at += length;
                copied = at;
                continue;
            }
            (None, b'-' | b'0'..=b'9') if !in_text => {
                at += number(&text[at..]).len();
                continue;
            }
            (None, b'\\') if in_text => at += 1,
            (None, b'"') => in_text = !in_text,
            _ => (),
        }
        at += 1;
    }
    replaced.extend_from_slice(&text[copied..]);
    (copied > 0).then_some(replaced)
}

/// The characters of a number at the start of a text.
fn number(text: &[u8]) -> &[u8] {
    let of_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    &text[..text.iter().take_while(of_number).count()]
}

/// The infinity at the start of a text and its length, if the text starts with a number beyond the
/// range of f64.
fn infinity(text: &[u8]) -> Option<(&'static str, usize)> {
    let number = number(text);
    let value: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    value.is_infinite().then_some((if value > 0.0 { "Infinity" } else { "-Infinity" }, number.len()))
}

/// Checks a text for libraries that parse JSON by themselves: more than `most` values are an error.
/// It does not check whether the text is JSON.
///
/// # Errors
/// The message quotes nothing of the text.
pub fn check(text: &[u8], most: usize) -> Result<(), String> {
    let (mut values, mut in_text, mut escaped) = (1usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'{' | b'[' if !in_text => values += 1,
            _ => (),
        }
    }
    if values > most { Err(too_many(most)) } else { Ok(()) }
}

fn too_many(most: usize) -> String {
    format!("more than {most} values, which no such text has")
}

/// A part of a larger text, of at most `MOST` values.
#[derive(Clone, Debug)]
pub struct Part<const MOST: usize>(pub Value);

impl<const MOST: usize> Default for Part<MOST> {
    fn default() -> Self {
        Self(Value::Null)
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Part<MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Tree { left: &Cell::new(MOST), most: MOST }.deserialize(from).map(Self)
    }
}

/// Describes a value for messages: lists and objects by their length, and long strings by their
/// beginning.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Object(map) => format!("an object of {}", map.len()),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::String(text) => format!("{:?}", super::shown(text)),
        other => other.to_string(),
    }
}

/// Builds a tree while the count of values is below the limit.
#[derive(Clone, Copy)]
struct Tree<'a> {
    left: &'a Cell<usize>,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom(too_many(self.most))),
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"a":[1,-2,0.5,null,true],"b":{"c":"x,{[\"","d":{}},"e":18446744073709551615}"#;

    #[test]
    fn a_text_is_the_tree_that_it_always_was() {
        let plain: Value = serde_json::from_str(TEXT).unwrap();
        assert_eq!(from_slice(TEXT.as_bytes(), 100).unwrap(), plain);
        assert_eq!(from_slice(TEXT.as_bytes(), 100).unwrap().to_string(), TEXT);
        assert_eq!(serde_json::from_str::<Part<100>>(TEXT).unwrap().0, plain);
        for wrong in ["", "{", "[1,]", "1 2", "{\"a\"}", "nul"] {
            assert!(from_slice(wrong.as_bytes(), 100).is_err(), "{wrong}");
        }
        assert!(from_slice(&[b'['; 4000], 100_000).is_err());
    }

    #[test]
    fn values_are_counted_and_too_many_refused() {
        // These are the outer object, its three values, five of the list and two of the object.
        assert!(from_slice(TEXT.as_bytes(), 11).is_ok());
        let error = from_slice(TEXT.as_bytes(), 10).unwrap_err();
        assert!(error.to_string().contains("more than 10 values"), "{error}");
        assert!(serde_json::from_str::<Part<10>>(TEXT).is_err());
        let bomb = format!("[{}0]", r#"{"a":0},"#.repeat(1000));
        assert!(from_slice(bomb.as_bytes(), 2002).is_ok() && from_slice(bomb.as_bytes(), 2001).is_err());
    }

    #[test]
    fn floats_that_are_no_numbers_are_replaced_outside_of_strings() {
        let nulls = |text: &str| {
            let replaced = replaced_no_numbers(text.as_bytes(), |_| "null".to_string());
            replaced.map(|text| String::from_utf8(text).unwrap())
        };
        assert_eq!(nulls(r#"{"a": NaN, "b": [-Infinity,Infinity]}"#).unwrap(), r#"{"a": null, "b": [null,null]}"#);
        assert_eq!(nulls(r#"{"NaN": "Infinity \" NaN", "c": 1}"#), None);
        assert_eq!(nulls(r#"{"\\": NaN}"#).unwrap(), r#"{"\\": null}"#);
        assert_eq!(nulls(r#"{"a": 1e999, "b": [-1E+400,2e-999]}"#).unwrap(), r#"{"a": null, "b": [null,2e-999]}"#);
        let quoted = replaced_no_numbers(b"[1.5,-1e999]", |word| format!("\"{word}\""));
        assert_eq!(quoted.unwrap(), b"[1.5,\"-Infinity\"]");
        let quoted = replaced_no_numbers(b"[NaN]", |word| format!("\"{word}\""));
        assert_eq!(quoted.unwrap(), b"[\"NaN\"]");
    }

    #[test]
    fn texts_for_libraries_are_counted_without_what_stands_in_strings() {
        assert_eq!(check(br#"{"a":"[,,,\"{{{\\","b":[1,2]}"#, 5), Ok(()));
        assert!(check(br#"{"a":"[,,,\"{{{\\","b":[1,2]}"#, 4).is_err());
    }
}
