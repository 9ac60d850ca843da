//! Primitive perplexity: of a model on tokens, in one pass, or of a record that was extracted with
//! logits.

use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};

use super::extract::extract;
use crate::host::language::json::numbers_to_dynamic;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::primitives::statistics::criteria::resampling;
use crate::host::run::context::Context;
use crate::host::values::handles::{ActivationsHandle, Model, StoredHandle, TokensHandle, activations};
use crate::host::values::options::Options;
use crate::record::{BootstrapArgs, plain};
use crate::stats;

const OF_RECORD: [&str; 4] = ["n_resamples", "confidence_level", "method", "seed"];
const OF_MODEL: [&str; 5] = ["memory_budget", "n_resamples", "confidence_level", "method", "seed"];

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    // Perplexity of the model on these tokens, with an interval over sequences.
    // print(perplexity(model, tokens).perplexity.value);
    let c = context.clone();
    engine.register_fn("perplexity", move |model: Model, tokens: TokensHandle| of_model(&c, model, tokens, Map::new()));
    let c = context.clone();
    engine.register_fn("perplexity", move |model: Model, tokens: TokensHandle, options: Map| {
        of_model(&c, model, tokens, options)
    });
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
}

fn register_for<T: Clone + Send + Sync + 'static>(engine: &mut Engine) {
    // The same for a record that was extracted with `logits: true`, without another pass.
    // print(acts.perplexity().per_sequence);
    engine.register_fn("perplexity", |acts: T| of_record(Dynamic::from(acts), Map::new()));
    engine.register_fn("perplexity", |acts: T, options: Map| of_record(Dynamic::from(acts), options));
}

fn of_model(context: &Context, model: Model, tokens: TokensHandle, options: Map) -> ScriptResult<Dynamic> {
    let run = || {
        let o = Options::new("perplexity", options.clone(), &OF_MODEL)?;
        let args = resampling(&o, BootstrapArgs::default())?;
        // Before the pass, which may take hours.
        stats::check_perplexity(tokens.0.info.num_sequences, tokens.0.info.sequence_length, &args)?;
        let mut asked: Map = options.into_iter().filter(|(key, _)| key.as_str() == "memory_budget").collect();
        asked.insert("logits".into(), true.into());
        stats::perplexity(&extract(context, &model, &tokens, asked)?.0, &args)
    };
    Ok(numbers_to_dynamic(&plain(&thrown(run())?)))
}

fn of_record(acts: Dynamic, options: Map) -> ScriptResult<Dynamic> {
    let acts = activations(&acts)?;
    let run = || {
        let o = Options::new("perplexity", options, &OF_RECORD)?;
        stats::perplexity(&acts, &resampling(&o, BootstrapArgs::default())?)
    };
    Ok(numbers_to_dynamic(&plain(&thrown(run())?)))
}
