//! The reader of option maps: unknown keys are errors with a suggestion, and whole numbers are
//! accepted as floats.

use std::time::Duration;

use rhai::{Dynamic, Map};
use serde_json::Value;

use super::declaration::{Opt, Primitive};
use crate::error::{Error, Result};
use crate::home;
use crate::record::option::Reader;
use crate::suggest;

pub(crate) struct Options {
    function: &'static str,
    map: Map,
    known: Known,
}

/// The keys of a function's options.
enum Known {
    /// The documented options of a primitive.
    Documented(&'static [Opt]),
    /// The keys of a map inside an option.
    Keys(Vec<&'static str>),
}

impl Known {
    fn has(&self, key: &str) -> bool {
        match self {
            Self::Documented(options) => options.iter().any(|option| option.key == key),
            Self::Keys(keys) => keys.contains(&key),
        }
    }

    fn hint(&self, key: &str) -> String {
        match self {
            Self::Documented(options) => suggest::hint(key, options.iter().map(|option| option.key)),
            Self::Keys(keys) => suggest::hint(key, keys.iter().copied()),
        }
    }
}

impl Options {
    /// The options of a primitive, with the keys of its documentation.
    pub(crate) fn of(primitive: &Primitive, map: Map) -> Result<Self> {
        Self::among(primitive.name, map, Known::Documented(primitive.options))
    }

    /// The function that has these options.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// `known` has every key of `function`.
    pub(crate) fn new(function: &'static str, map: Map, known: &[&'static str]) -> Result<Self> {
        Self::among(function, map, Known::Keys(known.to_vec()))
    }

    fn among(function: &'static str, map: Map, known: Known) -> Result<Self> {
        if let Some(key) = map.keys().find(|key| !known.has(key)) {
            return Err(Error::bad_argument(format!("{function}: unknown option `{key}`")).hint(known.hint(key)));
        }
        Ok(Self { function, map, known })
    }

    fn get(&self, key: &str) -> Option<&Dynamic> {
        debug_assert!(self.known.has(key), "{key} is not announced by {}", self.function);
        self.map.get(key).filter(|value| !value.is_unit())
    }

    /// True if `key` is an option.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.known.has(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn wrong(&self, key: &str, value: &Dynamic, expected: &str) -> Error {
        let shown = match value.is_string() {
            true => format!("{:?}", value.to_string()),
            false => value.to_string(),
        };
        let given = Error::bad_argument(format!("{}: `{key}` is {shown}, expected {expected}", self.function));
        given.hint(match value {
            value if value.is_char() => "single quotation marks hold one character: a text stands in \"…\"".to_string(),
            value if value.is_string() && expected.ends_with("from load_model") => {
                format!("give the model, not its name: {key}: load_model({shown})")
            }
            _ => self.help(),
        })
    }

    fn help(&self) -> String {
        format!("`outlier doc {}` lists the options", self.function.split(':').next().unwrap_or_default())
    }

    fn typed<T>(&self, key: &str, expected: &str, convert: impl Fn(&Dynamic) -> Option<T>) -> Result<Option<T>> {
        let convert = |value: &Dynamic| convert(value).ok_or_else(|| self.wrong(key, value, expected));
        self.get(key).map(convert).transpose()
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", number)
    }

    pub(crate) fn whole(&self, key: &str) -> Result<Option<usize>> {
        self.counted(key, 0)
    }

    /// A whole number that is not 0.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<usize>> {
        self.counted(key, 1)
    }

    fn counted(&self, key: &str, least: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = |expected: &str| self.wrong(key, value, expected);
        let count = value.as_int().ok().and_then(|count| usize::try_from(count).ok());
        match count.ok_or_else(|| wrong(&format!("a whole number, {least} or more")))? {
            count if count < least => Err(wrong(&format!("a whole number, {least} or more"))),
            count if count > MAX_COUNT => Err(wrong(&format!("a whole number, at most {MAX_COUNT}"))),
            count => Ok(Some(count)),
        }
    }

    /// A seed: a whole number of at least 0.
    pub(crate) fn seed(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number, 0 or more", |value| value.as_int().ok()?.try_into().ok())
    }

    /// A positive time in units of so many seconds.
    pub(crate) fn time(&self, key: &str, unit: f64) -> Result<Option<Duration>> {
        let Some(given) = self.float(key)? else { return Ok(None) };
        let most = MAX_TIME.as_secs_f64() / unit;
        if !(given > 0.0 && given <= most) {
            let message = format!("{}: `{key}` is {given}", self.function);
            return Err(Error::bad_argument(message).hint(format!("give a number above 0, at most {most:.0}")));
        }
        seconds(key, given * unit, MAX_TIME, "give a shorter time").map(Some)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| value.as_bool().ok())
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<String>> {
        self.typed(key, "a string", |value| value.clone().into_string().ok())
    }

    /// The path of a file or folder; `~` is the user's home.
    pub(crate) fn path(&self, key: &str) -> Result<Option<String>> {
        Ok(self.string(key)?.map(|path| home::expanded(path).display().to_string()))
    }

    /// A string, or an array of strings.
    pub(crate) fn string_or_strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a string or an array of strings", |value| match value.read_lock::<rhai::Array>() {
            Some(items) => items.iter().map(|item| item.clone().into_string().ok()).collect(),
            None => Some(vec![value.clone().into_string().ok()?]),
        })
    }

    /// Checks that `key` has a single value.
    ///
    /// # Errors
    /// If it is an array. `hint` makes the hint for it.
    pub(crate) fn single(&self, key: &str, hint: impl Fn(&str) -> String) -> Result<()> {
        let Some(value) = self.get(key).filter(|value| value.is_array()).map(ToString::to_string) else {
            return Ok(());
        };
        let message = format!("{}: `{key}` is a list, {value}, and takes one value", self.function);
        Err(Error::bad_argument(message).hint(hint(&value)))
    }

    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.missing(key))
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let words = || choices.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        let word = self.get(key).map(|value| value.clone().into_string().map_err(|_| self.wrong(key, value, &words())));
        let Some(word) = word.transpose()? else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => Ok(Some(*value)),
            None => Err(Error::bad_argument(format!("{}: `{key}` is {word:?}", self.function)).hint(choice_hint(
                key,
                &word,
                choices.iter().map(|(name, _)| *name),
            ))),
        }
    }

    /// A number, or an array of numbers.
    pub(crate) fn number_or_numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a number or an array of numbers", |value| match value.read_lock::<rhai::Array>() {
            Some(items) => items.iter().map(number).collect(),
            None => Some(vec![number(value)?]),
        })
    }

    /// Bytes: a number, or a string with a unit such as "2GB" or "512MiB".
    pub(crate) fn bytes(&self, key: &str) -> Result<Option<u64>> {
        let expected = "a number of bytes or a string such as \"2GB\", above 0, at most 1024TiB";
        self.typed(key, expected, |value| match value.as_int() {
            Ok(bytes) => bytes.try_into().ok().filter(|bytes| (1..=MAX_BYTES).contains(bytes)),
            Err(_) => parse_bytes(&value.clone().into_string().ok()?),
        })
    }

    /// The value of `key`, if it has a type of the host.
    pub(crate) fn host<T: Clone + Send + Sync + 'static>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        self.typed(key, expected, |value| value.clone().try_cast::<T>())
    }

    /// The value of `key` by a reader of its own, which is told what it reads, for its errors.
    pub(crate) fn any<T>(&self, key: &str, read: impl FnOnce(&Dynamic, &str) -> Result<T>) -> Result<Option<T>> {
        let what = format!("{}: `{key}`", self.function);
        self.get(key).map(|value| read(value, &what)).transpose()
    }

    /// The map of `key`. A string is short for a map with only the key `short`.
    pub(crate) fn map_of(&self, key: &str, short: &str) -> Result<Option<Map>> {
        self.typed(key, "a string or a map", |value| match value.read_lock::<Map>() {
            Some(map) => Some(map.clone()),
            None => Some(Map::from([(short.into(), value.clone().into_string().ok()?.into())])),
        })
    }

    /// The value of `key` as JSON, by a function that makes it.
    pub(crate) fn json(&self, key: &str, json: impl Fn(&Dynamic) -> Result<Value>) -> Result<Option<Value>> {
        self.typed(key, "plain values", |value| json(value).ok())
    }
}

impl Reader for Options {
    type Error = Error;

    fn missing(&self, key: &str) -> Error {
        Error::bad_argument(format!("{}: option `{key}` is missing", self.function)).hint(self.help())
    }
}

/// The longest time in an option: ten years of 365 days.
pub const MAX_TIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The largest number of bytes in an option or flag, 1 PiB.
const MAX_BYTES: u64 = 1 << 50;
/// The largest count in an option. Sums and products of counts fit into 64 bits.
pub(crate) const MAX_COUNT: usize = 1 << 31;

/// A number of seconds as a time of at most `most`; `what` names it in the error.
pub(crate) fn seconds(what: &str, seconds: f64, most: Duration, hint: &str) -> Result<Duration> {
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= most);
    time.ok_or_else(|| {
        let shown = if seconds.abs() < 1e15 { seconds.to_string() } else { format!("{seconds:?}") };
        Error::bad_argument(format!("{what} is {shown}, expected 0 to {} seconds", most.as_secs())).hint(hint)
    })
}

/// The hint for a word that is not one of an option's choices. Types of numbers have other names
/// elsewhere.
pub(crate) fn choice_hint<'a>(key: &str, word: &str, choices: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let known = |name: &str| choices.clone().into_iter().any(|choice| choice == name);
    if key != "dtype" || !known("f32") || !known("bf16") {
        return suggest::hint(word, choices);
    }
    match word.to_ascii_lowercase().trim_start_matches("torch.") {
        "float32" | "fp32" | "float" | "single" | "full" => "did you mean `f32`?".to_string(),
        "bfloat16" | "bfloat" | "brain" => "did you mean `bf16`?".to_string(),
        "float16" | "fp16" | "f16" | "half" => {
            "known are `f32` and `bf16`: weights stored in float16 are read as they are, and \
            computed with in f32"
                .to_string()
        }
        "auto" => "leave `dtype` out for `f32`; weights are read in whatever type they are stored in".to_string(),
        _ => suggest::hint(word, choices),
    }
}

pub(crate) fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|n| n as f64))
}

/// Parses "2GB", "1.5 GiB" or "77" as bytes: at least one, and at most `MAX_BYTES`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.trim().len());
    let (value, unit) = text.trim().split_at(digits);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = value.parse::<f64>().ok()? * scale as f64;
    (1.0..=MAX_BYTES as f64).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_have_units() {
        assert_eq!(super::parse_bytes("2GB"), Some(2_000_000_000));
        assert_eq!(super::parse_bytes("1.5 GiB"), Some(3 << 29));
        assert_eq!(super::parse_bytes("77"), Some(77));
        assert_eq!(super::parse_bytes("2TiB"), Some(2 << 40));
        assert_eq!(super::parse_bytes("1024TiB"), Some(super::MAX_BYTES));
        for wrong in ["2 parsec", "0", "0.5", "0GB", "-1", "", "GB", "1.2.3", "1025TiB", "99999999999999999999GB"] {
            assert_eq!(super::parse_bytes(wrong), None, "{wrong}");
        }
    }
}
