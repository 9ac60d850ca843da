//! The types of options: the values of each, its name in the documentation, and how a default is
//! written there. The host knows how each is read.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::time::Duration;

use serde_json::Value;

use super::option::{Opt, OptionSet, OptionType};

/// An option that may be left out, and has no value then.
pub struct Optional<T>(PhantomData<T>);

impl<T: OptionType> OptionType for Optional<T> {
    type Value = Option<T::Value>;

    fn kind() -> String {
        T::kind()
    }

    fn literal(value: &Self::Value) -> String {
        value.as_ref().map_or_else(String::new, T::literal)
    }

    fn absent() -> Option<Self::Value> {
        Some(None)
    }
}

/// A whole number that some uses of a function need, and the function asks for. It is 0 if it is
/// left out.
pub struct Needed;

impl OptionType for Needed {
    type Value = usize;

    fn kind() -> String {
        Whole::kind()
    }

    fn literal(value: &usize) -> String {
        Whole::literal(value)
    }

    fn absent() -> Option<usize> {
        Some(0)
    }
}

/// All options of another set, as a field of a set.
pub struct Include<S>(PhantomData<S>);

impl<S: OptionSet> OptionType for Include<S> {
    type Value = S::Args;
    const INCLUDED: Option<&'static [Opt]> = Some(S::OPTIONS);

    fn kind() -> String {
        String::new()
    }

    fn literal(_: &S::Args) -> String {
        String::new()
    }
}

/// A field that is no option: it is empty until the function fills it.
pub struct Beside<T>(PhantomData<T>);

impl<T: Debug + Default> OptionType for Beside<T> {
    type Value = T;
    const INCLUDED: Option<&'static [Opt]> = Some(&[]);

    fn kind() -> String {
        String::new()
    }

    fn literal(_: &T) -> String {
        String::new()
    }

    fn absent() -> Option<T> {
        Some(T::default())
    }
}

/// Makes `$name<T>` a type of options that differs from `T` only in how it is read, or in what is
/// known of it.
macro_rules! same_option {
    ($name:ident $(, $constant:ident: $type:ty = $value:expr)?) => {
        impl<T: $crate::record::option::OptionType> $crate::record::option::OptionType for $name<T> {
            type Value = T::Value;
            const MEANING: &'static str = T::MEANING;
            const DEFAULT: $crate::record::option::Default = T::DEFAULT;
            $(const $constant: $type = $value;)?

            fn kind() -> String {
                T::kind()
            }

            fn literal(value: &T::Value) -> String {
                T::literal(value)
            }

            fn absent() -> Option<T::Value> {
                T::absent()
            }
        }
    };
}

pub(crate) use same_option;

/// An option about the machine that computes, and not about the work.
pub struct OfMachine<T>(PhantomData<T>);

same_option!(OfMachine, OF_MACHINE: bool = true);

/// Declares types of options: values, name in the documentation, and the text of a value.
macro_rules! option_types {
    ($($(#[$about:meta])* $name:ident, $value:ty, $kind:literal, $literal:expr;)*) => {
        $(
            $(#[$about])*
            pub struct $name;

            impl OptionType for $name {
                type Value = $value;

                fn kind() -> String {
                    $kind.to_string()
                }

                fn literal(value: &$value) -> String {
                    let literal: fn(&$value) -> String = $literal;
                    literal(value)
                }
            }
        )*
    };
}

option_types! {
    /// A number.
    Float, f64, "float", debugged;
    /// A number that is rounded to 32 bits.
    Float32, f32, "float", debugged;
    /// A number above 0.
    PositiveFloat, f64, "float", debugged;
    /// A whole number of at least 0.
    Whole, usize, "int", displayed;
    /// A whole number of at least 1.
    Positive, usize, "int", displayed;
    /// A whole number of at least 0, of 64 bits.
    SeedNumber, u64, "int", displayed;
    /// True or false.
    Flag, bool, "bool", displayed;
    /// A string.
    Text, String, "string", debugged;
    /// The path of a file or folder; `~` is the user's home.
    PathText, String, "string", debugged;
    /// A string, or several.
    Texts, Vec<String>, "string | array", |values| one_or_several(values, debugged);
    /// A number of bytes, or a string with a unit such as "2GB".
    Bytes, u64, "bytes", |bytes| in_units(*bytes);
    /// A number, or several.
    Floats, Vec<f64>, "float | array", |values| one_or_several(values, debugged);
    /// A number that is rounded to 32 bits, or several.
    Floats32, Vec<f32>, "float | array", |values| one_or_several(values, debugged);
    /// A whole number, or several.
    Wholes, Vec<usize>, "int | array", |values| one_or_several(values, displayed);
    /// Plain values of any kind, in a map.
    Plain, Value, "map", |value| format!("#{value}");
    /// A time in hours, above 0.
    Hours, Duration, "float", |time| debugged(&(time.as_secs_f64() / HOUR));
    /// A time in minutes, above 0.
    Minutes, Duration, "float", |time| debugged(&(time.as_secs_f64() / MINUTE));
}

pub(crate) const HOUR: f64 = 3600.0;
pub(crate) const MINUTE: f64 = 60.0;

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

/// A type whose values have words.
pub trait Word: Copy + PartialEq + Debug + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

fn word_of<T: Word>(value: &T) -> String {
    let word = T::WORDS.iter().find(|(_, known)| known == value);
    word.map_or_else(String::new, |(word, _)| debugged(word))
}

/// One of several words.
pub struct Choice<T>(PhantomData<T>);

impl<T: Word> OptionType for Choice<T> {
    type Value = T;

    fn kind() -> String {
        T::WORDS.iter().map(|(word, _)| debugged(word)).collect::<Vec<_>>().join(" | ")
    }

    fn literal(value: &T) -> String {
        word_of(value)
    }
}

/// Several of some words, or one, or "all", whose value is an empty list.
pub struct AllOr<T>(PhantomData<T>);

impl<T: Word> OptionType for AllOr<T> {
    type Value = Vec<T>;

    fn kind() -> String {
        Texts::kind()
    }

    fn literal(values: &Vec<T>) -> String {
        Choices::literal(values)
    }
}

/// Several of some words, or one.
pub struct Choices<T>(PhantomData<T>);

impl<T: Word> OptionType for Choices<T> {
    type Value = Vec<T>;

    fn kind() -> String {
        Texts::kind()
    }

    fn literal(values: &Vec<T>) -> String {
        one_or_several(values, word_of)
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
