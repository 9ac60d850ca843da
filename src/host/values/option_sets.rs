//! Primitives with the sets of their options, and how they are registered.

use std::marker::PhantomData;
use std::sync::Arc;

use rhai::{Engine, Map, NativeCallContext};

use super::declaration::Primitive;
use super::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use super::options::Options;
use crate::error::Result;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::record::Activations;
use crate::record::option::{List, OptionSet, ReadFrom, Reader};
use crate::stats::Questions;

/// The set of a function without options.
pub(crate) struct NoOptions;

impl OptionSet for NoOptions {
    type Args = ();
    const LIST: &'static List = &List::of(&[]);
}

impl<R: Reader> ReadFrom<R> for NoOptions {
    fn read(_: &R) -> std::result::Result<(), R::Error> {
        Ok(())
    }
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

pub(crate) use register_with_options;

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

    /// The option map of a call.
    ///
    /// # Errors
    /// If an option is unknown.
    pub(crate) fn options(&self, options: Map) -> Result<Options> {
        Options::of(&self.primitive, options)
    }
}

impl<S: ReadFrom<Options>> Declared<S> {
    /// Reads the options of a call.
    ///
    /// # Errors
    /// If an option is unknown, and as of `ReadFrom::read`.
    pub(crate) fn read(&self, options: Map) -> Result<S::Args> {
        S::read(&self.options(options)?)
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
        run: fn(&NativeCallContext, &Arc<Questions>, &Options) -> ScriptResult<R>,
    ) {
        self.register_asking_on::<ActivationsHandle, R>(engine, run);
        self.register_asking_on::<StoredHandle, R>(engine, run);
    }

    fn register_asking_on<T: RecordHandle, R: Clone + Send + Sync + 'static>(
        &self,
        engine: &mut Engine,
        run: fn(&NativeCallContext, &Arc<Questions>, &Options) -> ScriptResult<R>,
    ) {
        let primitive = self.primitive;
        let call = move |context: &NativeCallContext, handle: &T, options: Map| {
            run(context, handle.questions(), &thrown(Options::of(&primitive, options))?)
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
