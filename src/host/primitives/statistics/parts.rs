//! Primitives that cut and join records: sequences, halves, join.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine};

use crate::error::{Error, Result};
use crate::host::language::problem::thrown;
use crate::host::language::weight;
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::Activations;
use crate::record::option::option_set;
use crate::record::option_types::SeedNumber;
use crate::stats;

/// The seed of halves, where none is named.
const HALVES_SEED: u64 = 0;

option_set! {
    /// The options of halves.
    pub(crate) struct HalvesOptions {
        /// equal seeds give equal halves
        seed: SeedNumber = HALVES_SEED;
    }
}

pub(crate) const SEQUENCES: Declared<NoOptions> = Declared::new(
    "sequences",
    &[
        "sequences(acts: activations, chosen: array) -> activations",
        "sequences(stored: results, chosen: array) -> activations",
    ],
    "The record of some sequences, by their numbers from 0, without another pass: all that the pass has recorded of them. It can be saved; `tokens.parts` says which sequences of which tokens it has. Tokens per expert are recorded for \
     all sequences together, so a part has none.",
    acts!("print(acts.sequences([1]).detect_outliers(#{ magnitude_threshold: 3.0 }).num_features);"),
);

pub(crate) const HALVES: Declared<HalvesOptions> = Declared::new(
    "halves",
    &["halves(acts: activations, options?: map) -> array", "halves(stored: results, options?: map) -> array"],
    "Two records, each of a random half of the sequences: what is found in one can be looked for in the other.",
    acts!("let half = acts.halves(#{ seed: 1 });\nprint(`${half[0].num_sequences} and ${half[1].num_sequences}`);"),
);

pub(crate) const JOIN: Declared<NoOptions> = Declared::new(
    "join",
    &["join(a: activations, b: activations) -> activations"],
    "One record of the sequences of two, first those of `a`: more sequences without repeating a pass. Both must be of the same \
     model, norms, ladder and length of sequences, and have no sequence in common; else the error says what differs.",
    acts!(
        "let more = model.extract_layernorms(load_tokens(#{ ids: [[1, 2, 3, 4]] }));\nprint(acts.join(more).num_sequences);"
    ),
);

pub(crate) fn register(engine: &mut Engine) {
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
    HALVES.register_on_records(engine, |acts, options| {
        let halves = weight::beside(|| stats::halves(acts, options.seed))?;
        Ok(halves.map(|half| Dynamic::from(handle(half))).into_iter().collect::<Array>())
    });
    register_join::<ActivationsHandle, ActivationsHandle>(engine);
    register_join::<ActivationsHandle, StoredHandle>(engine);
    register_join::<StoredHandle, ActivationsHandle>(engine);
    register_join::<StoredHandle, StoredHandle>(engine);
}

fn register_for<T: RecordHandle>(engine: &mut Engine) {
    engine.register_fn(SEQUENCES.name(), |record: T, chosen: Array| thrown(sequences(record.activations(), &chosen)));
}

fn register_join<A: RecordHandle, B: RecordHandle>(engine: &mut Engine) {
    engine.register_fn(JOIN.name(), |a: A, b: B| {
        let joined = weight::beside(|| stats::join(a.activations(), b.activations()));
        thrown(joined.map(handle).map_err(|error| error.context(JOIN.name())))
    });
}

fn handle(acts: Activations) -> ActivationsHandle {
    ActivationsHandle::new(Arc::new(acts))
}

fn sequences(acts: &Activations, chosen: &Array) -> Result<ActivationsHandle> {
    let number = |value: &Dynamic| {
        value.as_int().ok().and_then(|number| usize::try_from(number).ok()).ok_or_else(|| {
            Error::bad_argument(format!("sequences: {value} is not the number of a sequence"))
                .hint("give an array of whole numbers from 0, such as [0, 3, 5]")
        })
    };
    let chosen = chosen.iter().map(number).collect::<Result<Vec<_>>>()?;
    let part = weight::beside(|| stats::select(acts, &chosen));
    part.map(handle).map_err(|error| error.context(SEQUENCES.name()))
}
