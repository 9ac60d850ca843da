//! Reads a checkpoint's `config.json` key by key, and refuses keys that nothing has read.
//!
//! A setting that the engine ignores gives wrong numbers that look right. Therefore every key is
//! read by the architecture, or known to have no effect at its value (`keys.rs`), or an error that
//! names it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::{Map, Value};

use super::aliases;
use super::keys::{self, At};
use crate::error::{Error, Result};
use crate::outside;
use crate::progress::note;
use crate::suggest;

/// The largest whole number of a setting. The largest in releases are vocabularies and context
/// lengths.
const MAX_NUMBER: usize = 1 << 28;
/// The largest number of layers. The deepest released models have 126.
const MAX_LAYERS: usize = 1 << 12;
/// The largest number of routed experts in all layers of a model. Released models have at most
/// 24,576.
pub const MAX_EXPERTS: usize = 1 << 17;
/// The largest number of settings that one message names.
const NAMED: usize = 8;

/// The largest size of a config.json in bytes. With lists of settings for every layer, the longest
/// have some hundred thousand.
const MAX_BYTES: usize = 4 << 20;

/// The advice about a file that is not a config.json.
pub const EDITED: &str = "correct the file there; the one that belongs to the weights is with the model on its hub";

/// A value as messages show it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if outside::json::NO_NUMBERS.contains(&text.as_str()) => {
            format!("{text}, which is no number that JSON has")
        }
        value => outside::json::shown(value),
    }
}

pub struct Config {
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    /// Notes about values that have no effect although a user may expect one.
    notes: RefCell<Vec<String>>,
    /// The place of the file, for messages.
    place: String,
    /// The file beside config.json that describes quantised weights, if config.json does not.
    beside: Option<String>,
    /// Keys that the file calls by another name, with that name.
    renamed: aliases::Renamed,
}

impl Config {
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(Error::corrupt(format!(
                "reading {place}: {} bytes, more than any config.json has",
                text.len()
            ))
            .hint(EDITED));
        }
        let read = |text: &[u8]| outside::json::from_slice(text, outside::json::SMALL);
        // Python's `json`, and so transformers, reads NaN and infinities. They become texts here:
        // no setting that is a number is read from a text, and a key without effect may have any
        // value.
        let value = read(text.as_bytes()).or_else(|error| {
            let quoted = outside::json::replaced_no_numbers(text.as_bytes(), |word| format!("\"{word}\""));
            quoted.map_or(Err(error), |text| read(&text))
        });
        let value = value.map_err(|e| {
            let what = outside::syntax::wrong(text.as_bytes(), &e).unwrap_or_else(|| outside::complaint(e));
            Error::corrupt(format!("reading {place}: not valid JSON: {what}")).hint(EDITED)
        })?;
        match value {
            Value::Object(map) => Ok(Self::new(map, place.to_string())),
            _ => Err(Error::corrupt(format!("reading {place}: not a JSON object")).hint(EDITED)),
        }
    }

    fn new(mut map: Map<String, Value>, place: String) -> Self {
        let renamed = aliases::renamed(&mut map);
        Self { map, read: RefCell::default(), notes: RefCell::default(), place, beside: None, renamed }
    }

    /// Takes the settings of quantised weights from a file beside config.json, at `place`: all of
    /// them if the config has none, and the missing ones if it names the same method.
    pub fn beside(&mut self, place: String, method: &str, mut values: Map<String, Value>) {
        values.entry("quant_method").or_insert_with(|| method.into());
        let Some(key) = keys::QUANTISED.into_iter().find(|key| self.peek(key).is_some()) else {
            self.map.insert(keys::QUANTISED[0].to_string(), Value::Object(values));
            self.beside = Some(place);
            return;
        };
        match self.map.get_mut(key) {
            Some(Value::Object(said)) if said.get("quant_method") == values.get("quant_method") => {
                for (key, value) in values {
                    said.entry(key).or_insert(value);
                }
            }
            _ => (),
        }
    }

    /// The place of the settings under `key`, for messages.
    pub fn settings_place(&self, key: &str) -> String {
        self.beside.clone().unwrap_or_else(|| format!("{}: `{key}`", self.place))
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// The value of `key`; JSON null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key`, without marking the key as read.
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether `key` has been read.
    #[cfg(test)]
    pub fn was_read(&self, key: &str) -> bool {
        self.read.borrow().contains(key)
    }

    /// True if the key does not exist, not even as null.
    pub fn missing(&self, key: &str) -> bool {
        !self.map.contains_key(key)
    }

    fn typed<T>(&self, key: &str, what: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.wrong(key, &format!("is {}, expected {what}", shown(value)))),
            },
        }
    }

    /// An error about one key.
    pub fn wrong(&self, key: &str, problem: &str) -> Error {
        let key = self.renamed.iter().find(|(read, _)| *read == key).map_or(key, |(_, name)| name);
        Error::unsupported(format!("{}: `{key}` {problem}", self.place))
            .hint("is this the config.json that belongs to the weights, unchanged?")
    }

    /// The error of a key whose value a model may have, and for which nothing is computed.
    pub fn uncomputed(&self, key: &str, problem: &str) -> Error {
        self.wrong(key, problem)
            .hint("a model may have this value, but what it asks for is not computed; docs/models.md lists what is")
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.absent(key, "is this the config.json of the model, and complete?"))
    }

    /// The error of a missing key. `hint` is for a file without any key of a similar name.
    pub fn absent(&self, key: &str, hint: &str) -> Error {
        let missing = format!("{}: `{key}` is missing", self.place);
        let read = self.read.borrow();
        let unknown = |name: &&str| !read.contains(*name) && !keys::names().any(|known| known == *name);
        match suggest::misspelt(key, self.map.keys().map(String::as_str).filter(unknown)) {
            Some(near) => Error::corrupt(format!("{missing}; there is `{}`", outside::shown(near)))
                .hint(format!("is `{}` a misspelling of it?", outside::shown(near))),
            None => Error::corrupt(missing).hint(hint),
        }
    }

    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        match self.typed(key, "a whole number", Value::as_u64)? {
            Some(n) if n > MAX_NUMBER as u64 => Err(self.wrong(key, &format!("is {n}, more than any model has"))),
            number => Ok(number.map(|n| n as usize)),
        }
    }

    /// The number of layers, under one of these keys.
    pub fn layers(&self, keys: &[&str]) -> Result<usize> {
        match self.size_by(keys)? {
            n if n > MAX_LAYERS => Err(self.wrong(keys[0], &format!("is {n}, more layers than any model has"))),
            n => Ok(n),
        }
    }

    /// The number of routed experts of a layer, of which a token visits `top_k`, in a model of
    /// `layers` layers.
    pub fn experts(&self, keys: &[&str], top_k: usize, layers: usize) -> Result<usize> {
        let count = self.size_by(keys)?;
        if count.saturating_mul(layers) > MAX_EXPERTS {
            let problem = format!("is {count}, in {layers} layers more experts than any model has");
            return Err(self.wrong(keys[0], &problem));
        }
        if top_k > count {
            let problem = format!("is {top_k}, more than the {count} experts");
            return Err(self.wrong("num_experts_per_tok", &problem));
        }
        Ok(count)
    }

    pub fn usize(&self, key: &str) -> Result<usize> {
        self.required(key, self.opt_usize(key)?)
    }

    /// A whole number above 0, for sizes and counts.
    pub fn size(&self, key: &str) -> Result<usize> {
        match self.usize(key)? {
            0 => Err(self.wrong(key, "is 0")),
            n => Ok(n),
        }
    }

    /// As `size`, or `default` if the config leaves the key out.
    pub fn size_or(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match default {
            Some(size) if self.missing(key) => Ok(size),
            _ => self.size(key),
        }
    }

    /// A number, with a default if the config leaves the key out. Null gives None.
    pub fn number_or(&self, key: &str, default: f64) -> Result<Option<f64>> {
        Ok(self.opt_f64(key)?.or(Some(default).filter(|_| self.missing(key))))
    }

    /// A size that has several names. If several are present, they must agree.
    pub fn size_by(&self, keys: &[&str]) -> Result<usize> {
        let mut found: Option<(&str, usize)> = None;
        for key in keys.iter().filter(|key| self.has(key)) {
            let value = self.size(key)?;
            match found {
                Some((first, other)) if other != value => {
                    return Err(self.wrong(key, &format!("is {value}, but `{first}` is {other}")));
                }
                _ => found = Some((key, value)),
            }
        }
        self.required(keys[0], found.map(|(_, value)| value))
    }

    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn f64(&self, key: &str) -> Result<f64> {
        self.required(key, self.opt_f64(key)?)
    }

    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// As `bool_or`, for a field whose class also takes null. Python counts null as false, whatever
    /// the default is.
    pub fn nullable_bool_or(&self, key: &str, default: bool) -> Result<bool> {
        self.bool_or(key, default && self.missing(key))
    }

    pub fn opt_str(&self, key: &str) -> Result<Option<String>> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_string))
    }

    pub fn opt_list_usize(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.typed(key, "a list of whole numbers", |v| {
            v.as_array()?.iter().map(|item| item.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
        })
    }

    pub fn opt_list_str(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a list of strings", |v| {
            v.as_array()?.iter().map(|item| item.as_str().map(str::to_string)).collect()
        })
    }

    /// The object under `key`, which is read and finished like the whole.
    pub fn section(&self, key: &str) -> Result<Option<Config>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self::new(map.clone(), format!("{}: {key}", self.place)))),
            Some(other) => Err(self.wrong(key, &format!("is {}, expected an object", shown(other)))),
        }
    }

    /// The object under `key` as a config of its own. It gets `model_type` if it has none, and
    /// those of `shared` that only the whole has.
    pub fn inside(&self, key: &str, model_type: &str, shared: &[&str]) -> Result<Option<Config>> {
        let Some(mut inside) = self.section(key)? else { return Ok(None) };
        inside.map.entry("model_type").or_insert_with(|| model_type.into());
        inside.renamed.extend(aliases::renamed(&mut inside.map));
        for key in shared {
            if let (Some(value), true) = (self.map.get(*key), inside.missing(key)) {
                inside.map.insert(key.to_string(), value.clone());
            }
        }
        Ok(Some(inside))
    }

    /// The same config with numbers for keys that it does not have at all.
    pub fn with_missing(mut self, numbers: &[(&str, usize)]) -> Self {
        for (key, number) in numbers {
            self.map.entry(*key).or_insert_with(|| (*number).into());
        }
        self
    }

    /// The same config with `value` for `key`, whatever it had before.
    pub fn saying(mut self, key: &str, value: Value) -> Self {
        self.map.insert(key.to_string(), value);
        self
    }

    /// Accepts `key` only if it is absent, null or equal to `value`, because other values are not
    /// computed.
    pub fn only(&self, key: &str, value: Value) -> Result<()> {
        match self.get(key) {
            None => Ok(()),
            Some(found) if *found == value => Ok(()),
            Some(found) if found.as_f64().is_some() && found.as_f64() == value.as_f64() => Ok(()),
            Some(found) => Err(self.uncomputed(key, &format!("is {}; only {value} is supported", shown(found)))),
        }
    }

    /// Marks keys of a section as read that have no effect.
    pub fn without_effect(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| key.to_string()));
    }

    /// Tells the user, once and only if the config is accepted, that `key` `says` something that
    /// has no effect.
    pub fn tell(&self, key: &str, says: &str) {
        self.notes.borrow_mut().push(format!("{}: `{key}` {says}", self.place));
    }

    /// Ends the reading of a config by the architecture `model_type` of transformers. Every key
    /// that was not read must be known to have no effect. The user is told about values that may
    /// raise a question.
    ///
    /// # Errors
    /// Names the keys that would change the result, with what they ask for, or otherwise the
    /// unknown keys.
    pub fn finish(&self, model_type: &str) -> Result<()> {
        let mut unknown = Vec::new();
        for (key, value) in self.left() {
            match keys::row(key, model_type) {
                Some(row) if row.at.accepts(value) => {
                    if row.at.tells(value) {
                        self.tell(key, &format!("is {}, which has no effect: {}", shown(value), row.because));
                    }
                }
                Some(row) => {
                    let problem = format!("is {}: {}", shown(value), row.otherwise);
                    let error = Error::unsupported(format!("{}: `{key}` {problem}", self.place));
                    return Err(error.hint(match row.at {
                        At::Never => "docs/config_keys.md lists what is understood".to_string(),
                        at => format!("it has no effect at {}; docs/config_keys.md lists such keys", at.words()),
                    }));
                }
                None => unknown.push((key, value)),
            }
        }
        self.none(&unknown)?;
        self.notes.borrow().iter().for_each(|text| say_once(text));
        Ok(())
    }

    /// As `finish`, for a section, all of whose keys must have been read.
    pub fn finish_section(&self) -> Result<()> {
        self.none(&self.left().collect::<Vec<_>>())
    }

    /// Keys that were not read and have a value. Names that begin with an underscore are private to
    /// the library that wrote them: transformers ignores them, and the architectures read the few
    /// that have a meaning.
    fn left(&self) -> impl Iterator<Item = (&String, &Value)> {
        let unread = |(key, value): &(&String, &Value)| {
            !value.is_null() && !key.starts_with('_') && !self.read.borrow().contains(*key)
        };
        self.map.iter().filter(unread)
    }

    fn none(&self, unknown: &[(&String, &Value)]) -> Result<()> {
        let Some((first, _)) = unknown.first() else {
            return Ok(());
        };
        let named = |(key, value): &(&String, &Value)| format!("`{}`: {}", outside::shown(key), shown(value));
        let list: Vec<_> = unknown.iter().map(named).take(NAMED).collect();
        let read = self.read.borrow();
        // Nobody means a key that is there, which other architectures may know.
        let mut known: Vec<&str> = keys::names().filter(|name| !self.map.contains_key(*name)).collect();
        known.extend(read.iter().map(String::as_str));
        let meant = match suggest::close(first, known) {
            Some(near) => format!("did you mean `{near}`? "),
            None => String::new(),
        };
        Err(Error::unsupported(format!("{}: setting not understood: {}", self.place, list.join(", "))).hint(format!(
            "{meant}a setting that is ignored can give wrong numbers that look right; if you know that it has no effect \
             on the forward pass, remove it from a copy of config.json (docs/config_keys.md lists those that are known)",
        )))
    }
}

/// Gives a note unless this process has given it already, because a model is described, estimated
/// and opened with the same notes.
fn say_once(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().expect("no panic under this lock").insert(text.to_string()) {
        note(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "config.json").unwrap()
    }

    #[test]
    fn unread_keys_are_named() {
        let c = config(r#"{"hidden_size": 4, "attention_sinkhorn": 3, "use_cache": true, "_x": 1, "gone": null}"#);
        c.usize("hidden_size").unwrap();
        let error = c.finish("llama").unwrap_err();
        assert!(error.message.contains("`attention_sinkhorn`: 3") && !error.message.contains("gone"), "{error}");
    }

    #[test]
    fn wrong_types_are_named() {
        let error = config(r#"{"hidden_size": "4"}"#).usize("hidden_size").unwrap_err();
        assert!(error.message.contains("`hidden_size` is \"4\", expected a whole number"), "{error}");
        assert!(config("{}").usize("hidden_size").unwrap_err().message.contains("`hidden_size` is missing"));
    }
}
