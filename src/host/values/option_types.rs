//! How a value of an option map is read, for each type of options.

use std::fmt::Debug;
use std::marker::PhantomData;

use rhai::FnPtr;

use super::options::{MAX_COUNT, Options};
use super::readable::Readable;
use crate::error::{Error, Result};
use crate::record::option::{OptionType, ReadFrom, Reads, Shared};
use crate::record::option_types::{
    AllOr, Beside, Bytes, Choice, Choices, Flag, Float, Float32, Floats, Floats32, HOUR, Hours, Include, MINUTE,
    Minutes, Needed, OfMachine, Optional, PathText, Positive, PositiveFloat, SeedNumber, Text, Texts, Whole, Wholes,
    Word,
};
use crate::suggest;

/// A type of options that is read from an option map.
pub(crate) trait ReadOption: OptionType {
    /// The value of `key`; None if it is left out.
    ///
    /// # Errors
    /// If there is a value of another type, or outside of what is allowed.
    fn read(o: &Options, key: &str) -> Result<Option<Self::Value>>;
}

impl<T: ReadOption> Reads<T> for Options {
    fn read(&self, key: &str) -> Result<Option<T::Value>> {
        T::read(self, key)
    }
}

impl<T: Shared<Of: ReadOption>> ReadOption for T {
    fn read(o: &Options, key: &str) -> Result<Option<T::Value>> {
        T::Of::read(o, key)
    }
}

impl<T: ReadOption> ReadOption for Optional<T> {
    fn read(o: &Options, key: &str) -> Result<Option<Self::Value>> {
        Ok(T::read(o, key)?.map(Some))
    }
}

impl<T: ReadOption> ReadOption for OfMachine<T> {
    fn read(o: &Options, key: &str) -> Result<Option<Self::Value>> {
        T::read(o, key)
    }
}

impl<S: ReadFrom<Options>> ReadOption for Include<S> {
    fn read(o: &Options, _: &str) -> Result<Option<S::Args>> {
        S::read(o).map(Some)
    }
}

impl<T: Debug + Default> ReadOption for Beside<T> {
    fn read(_: &Options, _: &str) -> Result<Option<T>> {
        Ok(None)
    }
}

/// Reads types of options by methods of `Options`.
macro_rules! read_by {
    ($($name:ident: $read:expr;)*) => {
        $(impl ReadOption for $name {
            fn read(o: &Options, key: &str) -> Result<Option<Self::Value>> {
                let read: fn(&Options, &str) -> Result<Option<Self::Value>> = $read;
                read(o, key)
            }
        })*
    };
}

read_by! {
    Float: Options::float;
    Float32: |o, key| Ok(o.float(key)?.map(|value| value as f32));
    PositiveFloat: positive;
    Whole: Options::whole;
    Needed: Options::whole;
    Positive: Options::positive;
    SeedNumber: Options::seed;
    Flag: Options::flag;
    Text: Options::string;
    PathText: Options::path;
    Texts: Options::string_or_strings;
    Bytes: Options::bytes;
    Floats: Options::number_or_numbers;
    Floats32: |o, key| Ok(o.number_or_numbers(key)?.map(|values| values.into_iter().map(|value| value as f32).collect()));
    Wholes: wholes;
    Hours: |o, key| o.time(key, HOUR);
    Minutes: |o, key| o.time(key, MINUTE);
}

/// A function of the script.
pub(crate) struct Function;

impl OptionType for Function {
    type Value = FnPtr;

    fn kind() -> String {
        "function".to_string()
    }

    fn literal(_: &FnPtr) -> String {
        String::new()
    }
}

impl ReadOption for Function {
    fn read(o: &Options, key: &str) -> Result<Option<FnPtr>> {
        o.host(key, "a function, such as |f| f.max > 8.0")
    }
}

fn positive(o: &Options, key: &str) -> Result<Option<f64>> {
    let Some(number) = o.float(key)? else { return Ok(None) };
    match number > 0.0 && number.is_finite() {
        true => Ok(Some(number)),
        false => {
            Err(Error::bad_argument(format!("{}: `{key}` is {number}", o.function())).hint("give a number above 0"))
        }
    }
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

impl<T: Word> ReadOption for Choice<T> {
    fn read(o: &Options, key: &str) -> Result<Option<T>> {
        o.choice(key, T::WORDS)
    }
}

impl<T: Word> ReadOption for Choices<T> {
    fn read(o: &Options, key: &str) -> Result<Option<Vec<T>>> {
        let Some(words) = o.string_or_strings(key)? else { return Ok(None) };
        let value = |word: &String| {
            let known = T::WORDS.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
            known.ok_or_else(|| {
                Error::bad_argument(format!("{}: `{key}` is {word:?}", o.function()))
                    .hint(suggest::hint(word, T::WORDS.iter().map(|(name, _)| *name)))
            })
        };
        words.iter().map(value).collect::<Result<_>>().map(Some)
    }
}

impl<T: Word> ReadOption for AllOr<T> {
    fn read(o: &Options, key: &str) -> Result<Option<Vec<T>>> {
        let words = o.string_or_strings(key)?.unwrap_or_default();
        match &words[..] {
            [all] if all == "all" => Ok(Some(Vec::new())),
            _ => {
                let Some(mut values) = Choices::<T>::read(o, key)? else { return Ok(None) };
                let mut seen: Vec<T> = Vec::new();
                values.retain(|value| {
                    !seen.contains(value) && {
                        seen.push(*value);
                        true
                    }
                });
                if values.is_empty() {
                    let message = format!("{}: `{key}` is empty", o.function());
                    return Err(Error::bad_argument(message).hint("leave it out for the default, or say \"all\""));
                }
                Ok(Some(values))
            }
        }
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

    fn literal(_: &T) -> String {
        String::new()
    }
}

impl<T: HandleOption> ReadOption for Handle<T> {
    fn read(o: &Options, key: &str) -> Result<Option<T>> {
        o.host(key, T::EXPECTED)
    }
}
