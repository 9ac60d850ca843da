//! The types of options: how a value of an option map is read, and how a default is written in the
//! documentation.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::time::Duration;

use rhai::FnPtr;
use serde_json::Value;

use super::declaration::{Default, Opt};
use super::options::{MAX_COUNT, Options};
use super::readable::Readable;
use crate::error::{Error, Result};
use crate::suggest;

/// A type of options.
pub(crate) trait OptionType {
    type Value: Debug;
    /// The meaning of an option that several functions share; "" for a type of many options.
    const MEANING: &'static str = "";
    /// Further options that are read in place of one.
    const INCLUDED: Option<&'static [Opt]> = None;
    /// The default of this type. Most have none.
    const DEFAULT: Default = Default::Words("");

    /// The type as documentation names it.
    fn kind() -> String;

    /// The value of `key`; nothing if it is left out.
    ///
    /// # Errors
    /// If there is a value of another type, or outside of what is allowed.
    fn read(o: &Options, key: &str) -> Result<Option<Self::Value>>;

    /// A value as an expression of the language.
    fn literal(value: &Self::Value) -> String;

    /// The value of `key`, or the default of this type.
    ///
    /// # Errors
    /// If there is no value and no default, and as of `read`.
    fn complete(o: &Options, key: &str) -> Result<Self::Value> {
        o.required(key, Self::read(o, key)?)
    }
}

/// An option that may be left out, and has no value then.
pub(crate) struct Optional<T>(PhantomData<T>);

impl<T: OptionType> OptionType for Optional<T> {
    type Value = Option<T::Value>;

    fn kind() -> String {
        T::kind()
    }

    fn read(o: &Options, key: &str) -> Result<Option<Self::Value>> {
        Ok(Some(T::read(o, key)?))
    }

    fn literal(value: &Self::Value) -> String {
        value.as_ref().map_or_else(String::new, T::literal)
    }

    fn complete(o: &Options, key: &str) -> Result<Self::Value> {
        T::read(o, key)
    }
}

/// Declares a type of options: its values, its name in the documentation, its reader and the text
/// of its values.
macro_rules! option_type {
    ($(#[$about:meta])* $name:ident, $value:ty, $kind:literal, $read:expr, $literal:expr) => {
        $(#[$about])*
        pub(crate) struct $name;

        impl OptionType for $name {
            type Value = $value;

            fn kind() -> String {
                $kind.to_string()
            }

            fn read(o: &Options, key: &str) -> Result<Option<$value>> {
                let read: fn(&Options, &str) -> Result<Option<$value>> = $read;
                read(o, key)
            }

            fn literal(value: &$value) -> String {
                let literal: fn(&$value) -> String = $literal;
                literal(value)
            }
        }
    };
}

option_type!(
    /// A number.
    Float, f64, "float", |o, key| o.float(key), debugged
);
option_type!(
    /// A number that is rounded to 32 bits.
    Float32, f32, "float", |o, key| Ok(o.float(key)?.map(|value| value as f32)), debugged
);
option_type!(
    /// A whole number of at least 0.
    Whole, usize, "int", |o, key| o.whole(key), displayed
);
option_type!(
    /// A whole number of at least 1.
    Positive, usize, "int", |o, key| o.positive(key), displayed
);
option_type!(
    /// A whole number of at least 0, of 64 bits.
    SeedNumber, u64, "int", |o, key| o.seed(key), displayed
);
option_type!(
    /// True or false.
    Flag, bool, "bool", |o, key| o.flag(key), displayed
);
option_type!(
    /// A string.
    Text, String, "string", |o, key| o.string(key), debugged
);
option_type!(
    /// The path of a file or folder; `~` is the user's home.
    PathText, String, "string", |o, key| o.path(key), debugged
);
option_type!(
    /// A string, or several.
    Texts, Vec<String>, "string | array", |o, key| o.string_or_strings(key), |values| one_or_several(values, debugged)
);
option_type!(
    /// A number of bytes, or a string with a unit such as "2GB".
    Bytes, u64, "bytes", |o, key| o.bytes(key), |bytes| in_units(*bytes)
);
option_type!(
    /// A number, or several.
    Floats, Vec<f64>, "float | array", |o, key| o.number_or_numbers(key), |values| one_or_several(values, debugged)
);
option_type!(
    /// A whole number, or several.
    Wholes, Vec<usize>, "int | array", wholes, |values| one_or_several(values, displayed)
);
option_type!(
    /// Plain values of any kind, in a map.
    Plain, Value, "map", |o, key| o.json(key), |value| format!("#{value}")
);

option_type!(
    /// A function of the script.
    Function, FnPtr, "function", |o, key| o.host(key, "a function, such as |f| f.max > 8.0"), |_| String::new()
);

option_type!(
    /// A number above 0.
    PositiveFloat, f64, "float", positive, debugged
);
option_type!(
    /// A time in hours, above 0.
    Hours, Duration, "float", |o, key| o.time(key, HOUR), |time| debugged(&(time.as_secs_f64() / HOUR))
);
option_type!(
    /// A time in minutes, above 0.
    Minutes, Duration, "float", |o, key| o.time(key, MINUTE), |time| debugged(&(time.as_secs_f64() / MINUTE))
);

const HOUR: f64 = 3600.0;
const MINUTE: f64 = 60.0;

fn positive(o: &Options, key: &str) -> Result<Option<f64>> {
    let Some(number) = o.float(key)? else { return Ok(None) };
    match number > 0.0 && number.is_finite() {
        true => Ok(Some(number)),
        false => {
            Err(Error::bad_argument(format!("{}: `{key}` is {number}", o.function())).hint("give a number above 0"))
        }
    }
}

fn displayed<T: Display>(value: &T) -> String {
    value.to_string()
}

fn debugged<T: Debug>(value: &T) -> String {
    format!("{value:?}")
}

/// One value as it is, and several as an array.
fn one_or_several<T>(values: &[T], literal: fn(&T) -> String) -> String {
    match values {
        [one] => literal(one),
        _ => format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
    }
}

/// Bytes in the largest unit that leaves a whole number.
fn in_units(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| bytes.to_string(), |(name, unit)| format!("\"{}{name}\"", bytes / unit))
}

fn wholes(o: &Options, key: &str) -> Result<Option<Vec<usize>>> {
    let Some(numbers) = o.number_or_numbers(key)? else { return Ok(None) };
    let whole = |number: f64| match number.fract() == 0.0 && (0.0..=MAX_COUNT as f64).contains(&number) {
        true => Ok(number as usize),
        false => Err(Error::bad_argument(format!("{}: `{key}` is {number}", o.function()))
            .hint(format!("give whole numbers from 0 to {MAX_COUNT}"))),
    };
    numbers.into_iter().map(whole).collect::<Result<_>>().map(Some)
}

/// A type whose values have words.
pub(crate) trait Word: Copy + PartialEq + Debug + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

fn word_of<T: Word>(value: &T) -> String {
    let word = T::WORDS.iter().find(|(_, known)| known == value);
    word.map_or_else(String::new, |(word, _)| debugged(word))
}

/// One of several words.
pub(crate) struct Choice<T>(PhantomData<T>);

impl<T: Word> OptionType for Choice<T> {
    type Value = T;

    fn kind() -> String {
        T::WORDS.iter().map(|(word, _)| debugged(word)).collect::<Vec<_>>().join(" | ")
    }

    fn read(o: &Options, key: &str) -> Result<Option<T>> {
        o.choice(key, T::WORDS)
    }

    fn literal(value: &T) -> String {
        word_of(value)
    }
}

/// Several of some words, or one.
pub(crate) struct Choices<T>(PhantomData<T>);

impl<T: Word> OptionType for Choices<T> {
    type Value = Vec<T>;

    fn kind() -> String {
        Texts::kind()
    }

    fn read(o: &Options, key: &str) -> Result<Option<Vec<T>>> {
        let Some(words) = Texts::read(o, key)? else { return Ok(None) };
        let value = |word: &String| {
            let known = T::WORDS.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
            known.ok_or_else(|| {
                Error::bad_argument(format!("{}: `{key}` is {word:?}", o.function()))
                    .hint(suggest::hint(word, T::WORDS.iter().map(|(name, _)| *name)))
            })
        };
        words.iter().map(value).collect::<Result<_>>().map(Some)
    }

    fn literal(values: &Vec<T>) -> String {
        one_or_several(values, word_of)
    }
}

/// A value of the host that scripts hold.
pub(crate) trait HandleOption: Readable + Clone + Debug + Send + Sync + 'static {
    /// What is expected, in an error.
    const EXPECTED: &'static str;
}

/// A value of the host.
pub(crate) struct Handle<T>(PhantomData<T>);

impl<T: HandleOption> OptionType for Handle<T> {
    type Value = T;

    fn kind() -> String {
        T::NAME.to_string()
    }

    fn read(o: &Options, key: &str) -> Result<Option<T>> {
        o.host(key, T::EXPECTED)
    }

    fn literal(_: &T) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_scripts_write_them() {
        assert_eq!(Float::literal(&6.0), "6.0");
        assert_eq!(Float32::literal(&0.25), "0.25");
        assert_eq!(Text::literal(&"a \"b\"".to_string()), r#""a \"b\"""#);
        assert_eq!(Bytes::literal(&(1 << 30)), "\"1GiB\"");
        assert_eq!(Bytes::literal(&(3 << 19)), "\"1536KiB\"");
        assert_eq!(Bytes::literal(&77), "77");
        assert_eq!(Floats::literal(&vec![6.0]), "6.0");
        assert_eq!(Floats::literal(&vec![]), "[]");
        assert_eq!(Wholes::literal(&vec![0, 1]), "[0, 1]");
        assert_eq!(Plain::literal(&serde_json::json!({})), "#{}");
    }
}
