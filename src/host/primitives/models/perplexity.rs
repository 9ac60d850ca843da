//! Primitive perplexity: of a model on tokens, in one pass, or of a record that was extracted with
//! logits.

use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};

use super::extract::extract;
use crate::error::Result;
use crate::host::language::json::numbers_to_dynamic;
use crate::host::language::problem::thrown;
use crate::host::primitives::statistics::criteria::ResamplingOptions;
use crate::host::run::context::Context;
use crate::host::values::handles::{ActivationsHandle, Model, RecordHandle, StoredHandle, TokensHandle};
use crate::host::values::option_sets::{Declared, register_with_options};
use crate::host::values::options::Options;
use crate::record::option::{OptionSet, ReadFrom, option_set};
use crate::record::option_types::{Bytes, Include};
use crate::record::{Activations, DEFAULT_MEMORY_BUDGET, ExtractArgs, plain};
use crate::stats;

option_set! {
    /// The options of perplexity of a model. That of a record takes those of resampling only.
    pub(crate) struct PerplexityOptions {
        /// of a model: workspace beside weights and hidden states
        memory_budget: Bytes = DEFAULT_MEMORY_BUDGET;
        resampling: Include<ResamplingOptions>;
    }
}

pub(crate) const PERPLEXITY: Declared<PerplexityOptions> = Declared::new(
    "perplexity",
    &[
        "perplexity(model: model, tokens: tokens, options?: map) -> map",
        "perplexity(acts: activations, options?: map) -> map",
        "perplexity(stored: results, options?: map) -> map",
    ],
    "Perplexity of a model on tokens, in one pass, or of a record that was extracted with logits: true, with an interval over \
     sequences.",
    acts!("print(acts.perplexity(#{ n_resamples: 100 }).perplexity.value);"),
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    register_with_options!(engine, PERPLEXITY, |model: Model, tokens: TokensHandle; options| {
        of_model(&c, &model, &tokens, options)
    });
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
}

fn register_for<T: RecordHandle>(engine: &mut Engine) {
    engine.register_fn(PERPLEXITY.name(), |handle: T| thrown(of_record(handle.activations(), Map::new())));
    engine.register_fn(PERPLEXITY.name(), |handle: T, options: Map| thrown(of_record(handle.activations(), options)));
}

fn of_model(context: &Context, model: &Model, tokens: &TokensHandle, options: PerplexityOptions) -> Result<Dynamic> {
    let PerplexityOptions { memory_budget, resampling } = options;
    // Before the pass, which may take hours.
    stats::check_perplexity(tokens.0.info.num_sequences, tokens.0.info.sequence_length, &resampling)?;
    let args = ExtractArgs { logits: true, memory_budget, ..ExtractArgs::default() };
    let perplexity = stats::perplexity(extract(context, model, tokens, args)?.activations(), &resampling)?;
    Ok(numbers_to_dynamic(&plain(&perplexity)))
}

fn of_record(acts: &Activations, options: Map) -> Result<Dynamic> {
    let keys: Vec<_> = ResamplingOptions::OPTIONS.iter().map(|option| option.key).collect();
    let o = Options::new(PERPLEXITY.name(), options, &keys)?;
    let perplexity = stats::perplexity(acts, &ResamplingOptions::read(&o)?)?;
    Ok(numbers_to_dynamic(&plain(&perplexity)))
}
