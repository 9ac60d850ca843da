//! Options of functions that scripts call, each declared once: key, type, default and meaning. A
//! request declares its options as its fields. The declarations make the reader, the documentation,
//! completion and the checks of scripts.

use std::fmt::Debug;

/// A key of an option map.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    pub key: &'static str,
    pub kind: fn() -> String,
    pub default: Default,
    pub meaning: &'static str,
    /// True if it is about the machine that computes, and not about the work.
    pub of_machine: bool,
}

/// The value of an option that is left out.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// An expression of the language, made from the value that the program uses.
    Value(fn() -> String),
    /// The same for a value that is put in place of nothing after the options are read.
    Later(fn() -> String),
    /// Words for a default that depends on something else.
    Words(&'static str),
}

impl Opt {
    /// A type, or the possible words: `"f32" | "bf16"`.
    pub fn kind(&self) -> String {
        (self.kind)()
    }

    /// The default; "" if the option is required, or has none.
    pub fn default(&self) -> String {
        match self.default {
            Default::Value(text) | Default::Later(text) => text(),
            Default::Words(words) => words.to_string(),
        }
    }

    /// The possible words, if the option has no other values.
    pub fn choices(&self) -> Vec<String> {
        let kind = self.kind();
        let words: Option<Vec<_>> =
            kind.split(" | ").map(|word| Some(word.strip_prefix('"')?.strip_suffix('"')?.to_string())).collect();
        words.unwrap_or_default()
    }
}

/// The largest number of options of a function.
const MOST_OPTIONS: usize = 40;

/// Options, in the order of the documentation. It can be put together from parts at compile time.
#[derive(Clone, Copy)]
pub struct List {
    options: [Opt; MOST_OPTIONS],
    len: usize,
}

/// A part of a list: an option, or all options of another list.
#[derive(Clone, Copy)]
pub enum Part {
    One(Opt),
    All(&'static [Opt]),
}

impl Part {
    /// `included` in place of `option`, if there is one.
    pub(crate) const fn of(included: Option<&'static [Opt]>, option: Opt) -> Self {
        match included {
            Some(options) => Self::All(options),
            None => Self::One(option),
        }
    }
}

impl List {
    pub(crate) const fn of(parts: &[Part]) -> Self {
        const NONE: Opt =
            Opt { key: "", kind: String::new, default: Default::Words(""), meaning: "", of_machine: false };
        let mut list = Self { options: [NONE; MOST_OPTIONS], len: 0 };
        let mut part = 0;
        while part < parts.len() {
            match parts[part] {
                Part::One(option) => list.push(option),
                Part::All(options) => {
                    let mut at = 0;
                    while at < options.len() {
                        list.push(options[at]);
                        at += 1;
                    }
                }
            }
            part += 1;
        }
        list
    }

    const fn push(&mut self, option: Opt) {
        self.options[self.len] = option;
        self.len += 1;
    }

    pub const fn as_slice(&self) -> &[Opt] {
        self.options.split_at(self.len).0
    }
}

/// A type of options.
pub trait OptionType {
    type Value: Debug;
    /// The meaning of an option that several functions share; "" for a type of many options.
    const MEANING: &'static str = "";
    /// Further options that are read in place of one.
    const INCLUDED: Option<&'static [Opt]> = None;
    /// True for options about the machine that computes.
    const OF_MACHINE: bool = false;
    /// The default of this type. Most have none.
    const DEFAULT: Default = Default::Words("");

    /// The type as documentation names it.
    fn kind() -> String;

    /// A value as an expression of the language.
    fn literal(value: &Self::Value) -> String;

    /// The value of an option that is left out; None if the option is required.
    fn absent() -> Option<Self::Value> {
        None
    }
}

/// An option that several functions share, with its default. `shared_option!` declares it.
pub trait Shared: OptionType {
    type Of: OptionType<Value = Self::Value>;
}

/// A reader of options.
pub trait Reader {
    type Error;

    /// The error of a required option that is left out.
    fn missing(&self, key: &str) -> Self::Error;
}

/// A reader of options of one type.
pub trait Reads<T: OptionType>: Reader {
    /// The value of `key`; None if it is left out.
    ///
    /// # Errors
    /// If there is a value of another type, or outside of what is allowed.
    fn read(&self, key: &str) -> Result<Option<T::Value>, Self::Error>;
}

/// The options of a function, or a part of them.
pub trait OptionSet {
    /// What is read from an option map.
    type Args: Debug + 'static;
    const LIST: &'static List;
    const OPTIONS: &'static [Opt] = Self::LIST.as_slice();
}

/// A set of options that `R` reads.
pub trait ReadFrom<R: Reader>: OptionSet {
    /// # Errors
    /// If a required option is missing, or a value is not what its option takes.
    fn read(reader: &R) -> Result<Self::Args, R::Error>;
}

/// A reader without options: every value is the default.
pub(crate) struct LeftOut;

impl Reader for LeftOut {
    type Error = String;

    fn missing(&self, key: &str) -> String {
        format!("{key} is required")
    }
}

impl<T: OptionType> Reads<T> for LeftOut {
    fn read(&self, _: &str) -> Result<Option<T::Value>, String> {
        Ok(None)
    }
}

/// The arguments of a set in which no option is required.
pub(crate) fn defaults<S: ReadFrom<LeftOut>>() -> S::Args {
    S::read(&LeftOut).expect("every option has a default")
}

/// The meaning of an option: what is said at it, or else what its type says.
pub(crate) const fn meaning(own: &'static str, shared: &'static str) -> &'static str {
    if own.is_empty() { shared } else { own.trim_ascii() }
}

/// The key of an option by the name of its field. A field that is a keyword of Rust is `r#where`.
pub(crate) const fn key_of(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares a set of options. A field is `key: Type = default;` with its meaning as doc comment.
///
/// A type without a default is required, unless it is `Optional` or a shared option. For an
/// `Optional` whose default is found later, `, otherwise value` is documented. `=> "words"`
/// describes a default that depends on something else.
///
/// `struct Name { … }` makes a struct with these fields, and may have attributes of serde.
/// `Name for Args { … }` fills a struct that there is.
macro_rules! option_set {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])*
                $key:ident: $type:ty $(= $default:expr)? $(, otherwise $later:expr)? $(=> $words:literal)?
            );* $(;)?
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $vis struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])*
                $vis $key: <$type as $crate::record::option::OptionType>::Value,
            )*
        }

        $crate::record::option::option_set! {
            @impl $name, $name
            $([$($doc),*] $key [$type] [$($default)?] [$($later)?] [$($words)?])*
        }
    };
    (
        $(#[$about:meta])*
        $vis:vis $name:ident for $args:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty $(= $default:expr)? $(, otherwise $later:expr)? $(=> $words:literal)?
            );* $(;)?
        }
    ) => {
        $(#[$about])*
        $vis struct $name;

        $crate::record::option::option_set! {
            @impl $name, $args
            $([$($doc),*] $key [$type] [$($default)?] [$($later)?] [$($words)?])*
        }
    };
    (
        @impl $name:ident, $args:ident
        $([$($doc:literal),*] $key:ident [$type:ty] [$($default:expr)?] [$($later:expr)?] [$($words:literal)?])*
    ) => {
        impl $crate::record::option::OptionSet for $name {
            type Args = $args;
            const LIST: &'static $crate::record::option::List =
                &$crate::record::option::List::of(&[$(
                    $crate::record::option::Part::of(
                        <$type as $crate::record::option::OptionType>::INCLUDED,
                        $crate::record::option::Opt {
                            key: $crate::record::option::key_of(stringify!($key)),
                            kind: <$type as $crate::record::option::OptionType>::kind,
                            default: $crate::record::option::option_set!(
                                @default [$type] [$($default)?] [$($later)?] [$($words)?]
                            ),
                            meaning: $crate::record::option::meaning(
                                concat!($($doc),*),
                                <$type as $crate::record::option::OptionType>::MEANING,
                            ),
                            of_machine: <$type as $crate::record::option::OptionType>::OF_MACHINE,
                        },
                    ),
                )*]);
        }

        impl<R> $crate::record::option::ReadFrom<R> for $name
        where
            R: $crate::record::option::Reader $(+ $crate::record::option::Reads<$type>)*,
        {
            fn read(reader: &R) -> ::std::result::Result<$args, <R as $crate::record::option::Reader>::Error> {
                Ok($args {
                    $(
                        $key: {
                            let key = $crate::record::option::key_of(stringify!($key));
                            let given = <R as $crate::record::option::Reads<$type>>::read(reader, key)?;
                            $crate::record::option::option_set!(
                                @absent reader, key, given, [$type] [$($default)?]
                            )
                        },
                    )*
                })
            }
        }
    };
    (@default [$type:ty] [$($default:expr)?] [] [$words:literal]) => {
        $crate::record::option::Default::Words($words)
    };
    (@default [$type:ty] [$default:expr] [] []) => {
        $crate::record::option::Default::Value(|| <$type as $crate::record::option::OptionType>::literal(&$default))
    };
    (@default [$type:ty] [] [$later:expr] []) => {
        $crate::record::option::Default::Later(|| {
            <$type as $crate::record::option::OptionType>::literal(&Some($later))
        })
    };
    (@default [$type:ty] [] [] []) => {
        <$type as $crate::record::option::OptionType>::DEFAULT
    };
    (@absent $reader:ident, $key:expr, $given:ident, [$type:ty] [$default:expr]) => {
        $given.unwrap_or_else(|| $default)
    };
    (@absent $reader:ident, $key:expr, $given:ident, [$type:ty] []) => {
        match $given.or_else(<$type as $crate::record::option::OptionType>::absent) {
            Some(value) => value,
            None => return Err($crate::record::option::Reader::missing($reader, $key)),
        }
    };
}

/// Declares an option that several functions share: `Name: Type = default`, with the meaning as
/// its doc comment.
macro_rules! shared_option {
    (
        $(#[doc = $doc:literal])*
        $vis:vis $name:ident: $type:ty = $default:expr $(=> $words:literal)?;
    ) => {
        $(#[doc = $doc])*
        $vis struct $name;

        impl $crate::record::option::OptionType for $name {
            type Value = <$type as $crate::record::option::OptionType>::Value;
            const MEANING: &'static str = concat!($($doc),*).trim_ascii();
            const DEFAULT: $crate::record::option::Default =
                $crate::record::option::option_set!(@default [$type] [$default] [] [$($words)?]);

            fn kind() -> String {
                <$type as $crate::record::option::OptionType>::kind()
            }

            fn literal(value: &Self::Value) -> String {
                <$type as $crate::record::option::OptionType>::literal(value)
            }

            fn absent() -> Option<Self::Value> {
                Some($default)
            }
        }

        impl $crate::record::option::Shared for $name {
            type Of = $type;
        }
    };
}

pub(crate) use {option_set, shared_option};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_put_together_in_order() {
        const fn opt(key: &'static str) -> Opt {
            Opt {
                key,
                kind: || "\"a\" | \"b\"".to_string(),
                default: Default::Words("a"),
                meaning: "",
                of_machine: false,
            }
        }
        const INNER: &[Opt] = &[opt("x"), opt("y")];
        let list = List::of(&[Part::of(Some(INNER), opt("no")), Part::of(None, opt("z"))]);
        assert_eq!(list.as_slice().iter().map(|option| option.key).collect::<Vec<_>>(), ["x", "y", "z"]);
        assert_eq!(list.as_slice()[0].choices(), ["a", "b"]);
        assert!(Opt { kind: || "int".to_string(), ..opt("n") }.choices().is_empty());
    }
}
