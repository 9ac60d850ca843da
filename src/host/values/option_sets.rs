//! Sets of options, each declared once: key, type, default and meaning. The declaration makes the
//! reader, the documentation, completion and the checks of scripts.

use std::fmt::Debug;
use std::marker::PhantomData;

use rhai::{Engine, Map, NativeCallContext};

use super::declaration::{List, Opt, Primitive};
use super::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use super::option_types::OptionType;
use super::options::Options;
use crate::error::Result;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::record::Activations;

/// The options of a function, or a part of them.
pub(crate) trait OptionSet {
    /// What is read from an option map.
    type Args: Debug + 'static;
    const LIST: &'static List;
    const OPTIONS: &'static [Opt] = Self::LIST.as_slice();

    /// # Errors
    /// If a required option is missing, or a value is not what its option takes.
    fn read(o: &Options) -> Result<Self::Args>;
}

/// The set of a function without options.
pub(crate) struct NoOptions;

impl OptionSet for NoOptions {
    type Args = ();
    const LIST: &'static List = &List::of(&[]);

    fn read(_: &Options) -> Result<()> {
        Ok(())
    }
}

/// All options of another set, as a field of a set.
pub(crate) struct Include<S>(PhantomData<S>);

impl<S: OptionSet> OptionType for Include<S> {
    type Value = S::Args;
    const INCLUDED: Option<&'static [Opt]> = Some(S::OPTIONS);

    fn kind() -> String {
        String::new()
    }

    fn read(o: &Options, _: &str) -> Result<Option<S::Args>> {
        S::read(o).map(Some)
    }

    fn literal(_: &S::Args) -> String {
        String::new()
    }
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
/// `struct Name { … }` makes a struct with these fields. `Name for Args { … }` fills a struct that
/// there is, and `with (field = value)` gives a field of it that is no option. `checked by (f)`
/// calls a function before anything is read.
macro_rules! option_set {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty $(= $default:expr)? $(, otherwise $later:expr)? $(=> $words:literal)?
            );* $(;)?
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $vis struct $name {
            $(
                $(#[doc = $doc])*
                pub(crate) $key: <$type as $crate::host::values::option_types::OptionType>::Value,
            )*
        }

        $crate::host::values::option_sets::option_set! {
            @impl $name, $name, [] []
            $([$($doc),*] $key [$type] [$($default)?] [$($later)?] [$($words)?])*
        }
    };
    (
        $(#[$about:meta])*
        $vis:vis $name:ident for $args:ident $(with ($fixed:ident = $value:expr))? $(checked by ($check:path))? {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty $(= $default:expr)? $(, otherwise $later:expr)? $(=> $words:literal)?
            );* $(;)?
        }
    ) => {
        $(#[$about])*
        $vis struct $name;

        $crate::host::values::option_sets::option_set! {
            @impl $name, $args, [$($fixed: $value,)?] [$($check)?]
            $([$($doc),*] $key [$type] [$($default)?] [$($later)?] [$($words)?])*
        }
    };
    (
        @impl $name:ident, $args:ident, [$($fixed:ident: $value:expr,)?] [$($check:path)?]
        $([$($doc:literal),*] $key:ident [$type:ty] [$($default:expr)?] [$($later:expr)?] [$($words:literal)?])*
    ) => {
        impl $crate::host::values::option_sets::OptionSet for $name {
            type Args = $args;
            const LIST: &'static $crate::host::values::declaration::List =
                &$crate::host::values::declaration::List::of(&[$(
                    $crate::host::values::declaration::Part::of(
                        <$type as $crate::host::values::option_types::OptionType>::INCLUDED,
                        $crate::host::values::declaration::Opt {
                            key: $crate::host::values::option_sets::key_of(stringify!($key)),
                            kind: <$type as $crate::host::values::option_types::OptionType>::kind,
                            default: $crate::host::values::option_sets::option_set!(
                                @default [$type] [$($default)?] [$($later)?] [$($words)?]
                            ),
                            meaning: $crate::host::values::option_sets::meaning(
                                concat!($($doc),*),
                                <$type as $crate::host::values::option_types::OptionType>::MEANING,
                            ),
                        },
                    ),
                )*]);

            fn read(o: &$crate::host::values::options::Options) -> $crate::error::Result<$args> {
                $($check(o)?;)?
                Ok($args {
                    $($fixed: $value,)?
                    $(
                        $key: $crate::host::values::option_sets::option_set!(
                            @read o, $crate::host::values::option_sets::key_of(stringify!($key)), [$type] [$($default)?]
                        ),
                    )*
                })
            }
        }
    };
    (@default [$type:ty] [$($default:expr)?] [] [$words:literal]) => {
        $crate::host::values::declaration::Default::Words($words)
    };
    (@default [$type:ty] [$default:expr] [] []) => {
        $crate::host::values::declaration::Default::Value(|| {
            <$type as $crate::host::values::option_types::OptionType>::literal(&$default)
        })
    };
    (@default [$type:ty] [] [$later:expr] []) => {
        $crate::host::values::declaration::Default::Later(|| {
            <$type as $crate::host::values::option_types::OptionType>::literal(&Some($later))
        })
    };
    (@default [$type:ty] [] [] []) => {
        <$type as $crate::host::values::option_types::OptionType>::DEFAULT
    };
    (@read $o:ident, $key:expr, [$type:ty] [$default:expr]) => {
        <$type as $crate::host::values::option_types::OptionType>::read($o, $key)?.unwrap_or_else(|| $default)
    };
    (@read $o:ident, $key:expr, [$type:ty] []) => {
        <$type as $crate::host::values::option_types::OptionType>::complete($o, $key)?
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

        impl $crate::host::values::option_types::OptionType for $name {
            type Value = <$type as $crate::host::values::option_types::OptionType>::Value;
            const MEANING: &'static str = concat!($($doc),*).trim_ascii();
            const DEFAULT: $crate::host::values::declaration::Default =
                $crate::host::values::option_sets::option_set!(@default [$type] [$default] [] [$($words)?]);

            fn kind() -> String {
                <$type as $crate::host::values::option_types::OptionType>::kind()
            }

            fn read(o: &$crate::host::values::options::Options, key: &str) -> $crate::error::Result<Option<Self::Value>> {
                <$type as $crate::host::values::option_types::OptionType>::read(o, key)
            }

            fn literal(value: &Self::Value) -> String {
                <$type as $crate::host::values::option_types::OptionType>::literal(value)
            }

            fn complete(o: &$crate::host::values::options::Options, key: &str) -> $crate::error::Result<Self::Value> {
                Ok($crate::host::values::option_sets::option_set!(@read o, key, [$type] [$default]))
            }
        }
    };
}

/// Registers a primitive with an option map as its last argument, and without one.
///
/// `|argument: Type; options| call` is called with the arguments that are read from the map, and
/// gives a `Result` of the program.
macro_rules! register_with_options {
    ($engine:ident, $declared:expr, |$($name:ident: $type:ty),*; $options:ident| $call:expr) => {
        let call = move |$($name: $type,)* options: ::rhai::Map| {
            $crate::host::language::problem::thrown($declared.read(options).and_then(|$options| $call))
        };
        let with_options = call.clone();
        $engine.register_fn($declared.name(), move |$($name: $type),*| call($($name,)* ::rhai::Map::new()));
        $engine.register_fn($declared.name(), with_options);
    };
}

pub(crate) use {option_set, register_with_options, shared_option};

/// A primitive with the set of its options.
pub(crate) struct Declared<S> {
    pub primitive: Primitive,
    set: PhantomData<S>,
}

impl<S: OptionSet> Declared<S> {
    pub(crate) const fn new(
        name: &'static str,
        signatures: &'static [&'static str],
        summary: &'static str,
        example: &'static str,
    ) -> Self {
        Self { primitive: Primitive { name, signatures, summary, options: S::OPTIONS, example }, set: PhantomData }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.primitive.name
    }

    /// Reads the options of a call.
    ///
    /// # Errors
    /// If an option is unknown, and as of `OptionSet::read`.
    pub(crate) fn read(&self, options: Map) -> Result<S::Args> {
        S::read(&self.options(options)?)
    }

    /// The option map of a call.
    ///
    /// # Errors
    /// If an option is unknown.
    pub(crate) fn options(&self, options: Map) -> Result<Options> {
        Options::of(&self.primitive, options)
    }

    /// Registers a primitive of records and of stored results, as its signatures say: with an
    /// option map, and without one where it may be left out.
    pub(crate) fn register_on_records<R: Clone + Send + Sync + 'static>(
        &self,
        engine: &mut Engine,
        run: fn(&Activations, S::Args) -> Result<R>,
    ) {
        self.register_on::<ActivationsHandle, R>(engine, run);
        self.register_on::<StoredHandle, R>(engine, run);
    }

    /// The same for a primitive that may call functions of the script.
    pub(crate) fn register_asking_on_records<R: Clone + Send + Sync + 'static>(
        &self,
        engine: &mut Engine,
        run: fn(&NativeCallContext, &Activations, &Options) -> ScriptResult<R>,
    ) {
        self.register_asking_on::<ActivationsHandle, R>(engine, run);
        self.register_asking_on::<StoredHandle, R>(engine, run);
    }

    fn register_asking_on<T: RecordHandle, R: Clone + Send + Sync + 'static>(
        &self,
        engine: &mut Engine,
        run: fn(&NativeCallContext, &Activations, &Options) -> ScriptResult<R>,
    ) {
        let primitive = self.primitive;
        let call = move |context: &NativeCallContext, handle: &T, options: Map| {
            run(context, handle.activations(), &thrown(Options::of(&primitive, options))?)
        };
        if primitive.arities().contains(&1) {
            let alone = move |context: NativeCallContext, handle: T| call(&context, &handle, Map::new());
            engine.register_fn(primitive.name, alone);
        }
        let with_options = move |context: NativeCallContext, handle: T, options: Map| call(&context, &handle, options);
        engine.register_fn(primitive.name, with_options);
    }

    fn register_on<T: RecordHandle, R: Clone + Send + Sync + 'static>(
        &self,
        engine: &mut Engine,
        run: fn(&Activations, S::Args) -> Result<R>,
    ) {
        let primitive = self.primitive;
        let call = move |handle: T, options: Map| {
            thrown(Options::of(&primitive, options).and_then(|o| run(handle.activations(), S::read(&o)?)))
        };
        if primitive.arities().contains(&1) {
            engine.register_fn(primitive.name, move |handle: T| call(handle, Map::new()));
        }
        engine.register_fn(primitive.name, call);
    }
}
