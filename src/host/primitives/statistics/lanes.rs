//! Primitive compare_lanes: what variants of a model came to, against the model as it is.

use rhai::Engine;

use super::criteria::ResamplingOptions;
use crate::host::language::json::record_to_dynamic;
use crate::host::values::option_sets::Declared;
use crate::stats;

pub(crate) const COMPARE_LANES: Declared<ResamplingOptions> = Declared::new(
    "compare_lanes",
    &[
        "compare_lanes(acts: activations, options?: map) -> array",
        "compare_lanes(stored: results, options?: map) -> array",
    ],
    "What each lane of an extraction came to, against the model as it is: perplexity and its ratio, divergence and agreement, with \
     intervals over sequences, and a paired test of the losses, corrected for the number of lanes (Holm).",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let zero = #{ what: "zero", sites: ["attn_in"], dims: [1] };
let acts = model.extract(tokens, #{ lanes: [#{ name: "without 1", changes: [zero] }] });
print(acts.compare_lanes(#{ n_resamples: 100 })[0].perplexity_ratio.value > 0.0);"#,
);

pub(crate) fn register(engine: &mut Engine) {
    COMPARE_LANES.register_on_records(engine, |acts, args| {
        stats::compare_lanes(acts, &args).map(|rows| record_to_dynamic(&rows))
    });
}
