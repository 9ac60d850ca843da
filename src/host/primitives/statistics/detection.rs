//! Primitives of statistics: detect_outliers, bootstrap_ci. Both work on new and on stored
//! activations.

use std::sync::Arc;

use rhai::Engine;

use super::criteria::ResamplingOptions;
use super::own::{OwnOptions, asking, one};
use crate::host::language::problem::thrown;
use crate::host::values::findings::{BootstrapHandle, DetectionHandle};
use crate::host::values::option_sets::Declared;
use crate::record::option::{ReadFrom, option_set};
use crate::record::option_types::Include;
use crate::stats;

option_set! {
    /// The options of bootstrap_ci.
    pub(crate) struct BootstrapOptions {
        criterion: Include<OwnOptions>;
        resampling: Include<ResamplingOptions>;
    }
}

pub(crate) const DETECT_OUTLIERS: Declared<OwnOptions> = Declared::new(
    "detect_outliers",
    &[
        "detect_outliers(acts: activations, options?: map) -> detection",
        "detect_outliers(stored: results, options?: map) -> detection",
    ],
    "The features that pass the criterion of Dettmers et al. 2022, with their shares of layers and positions, extremes, \
     and classes.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));
for threshold in [3.0, 4.0, 6.0] {
    let found = acts.detect_outliers(#{ magnitude_threshold: threshold });
    print(`${threshold}: ${format_count(found.num_features, "feature")}, ${found.classification}`);
}"#,
);

pub(crate) const BOOTSTRAP_CI: Declared<BootstrapOptions> = Declared::new(
    "bootstrap_ci",
    &[
        "bootstrap_ci(acts: activations, options?: map) -> intervals",
        "bootstrap_ci(stored: results, options?: map) -> intervals",
    ],
    "Intervals of what detect_outliers finds, by resampling whole sequences, and how often the class held.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] }));
let ci = acts.bootstrap_ci(#{ magnitude_threshold: 3.0, n_resamples: 200 });
print(`features: ${ci.num_features.low} to ${ci.num_features.high}`);"#,
);

pub(crate) fn register(engine: &mut Engine) {
    DETECT_OUTLIERS.register_asking_on_records(engine, |context, questions, o| {
        let (criterion, function) = thrown(OwnOptions::read(o).and_then(|own| one(o, own)))?;
        let acts = questions.activations();
        match function {
            None => thrown(questions.detect(criterion)).map(DetectionHandle::of),
            Some(f) => asking(context, &f, |judge| stats::detect_where(acts, &criterion, judge))
                .map(|found| DetectionHandle::new(Arc::new(found))),
        }
    });
    BOOTSTRAP_CI.register_asking_on_records(engine, |context, questions, o| {
        let acts = questions.activations();
        let BootstrapOptions { criterion, resampling: args } = thrown(BootstrapOptions::read(o))?;
        let (criterion, function) = thrown(one(o, criterion))?;
        let intervals = match function {
            None => thrown(stats::bootstrap(acts, &criterion, &args))?,
            Some(f) => asking(context, &f, |judge| stats::bootstrap_where(acts, &criterion, &args, judge))?,
        };
        Ok(BootstrapHandle::new(Arc::new(intervals), acts))
    });
}
