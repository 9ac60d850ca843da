//! Primitives of statistics: detect_outliers, bootstrap_ci. Both work on new and on stored
//! activations.

use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};

use super::criteria::{criterion, resampling};
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::values::findings::{BootstrapHandle, DetectionHandle};
use crate::host::values::handles::{ActivationsHandle, StoredHandle, activations};
use crate::host::values::options::Options;
use crate::record::BootstrapArgs;
use crate::stats;

pub(crate) fn register(engine: &mut Engine) {
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
}

fn register_for<T: Clone + Send + Sync + 'static>(engine: &mut Engine) {
    engine.register_fn("detect_outliers", |acts: T, options: Map| detect(Dynamic::from(acts), options));
    engine.register_fn("detect_outliers", |acts: T| detect(Dynamic::from(acts), Map::new()));
    engine.register_fn("bootstrap_ci", |acts: T, options: Map| bootstrap(Dynamic::from(acts), options));
    engine.register_fn("bootstrap_ci", |acts: T| bootstrap(Dynamic::from(acts), Map::new()));
}

fn detect(acts: Dynamic, options: Map) -> ScriptResult<DetectionHandle> {
    let acts = activations(&acts)?;
    let found = Options::of("detect_outliers", options)
        .and_then(|o| criterion(&o))
        .and_then(|criterion| stats::detect(&acts, &criterion));
    Ok(DetectionHandle(Arc::new(thrown(found)?)))
}

fn bootstrap(acts: Dynamic, options: Map) -> ScriptResult<BootstrapHandle> {
    let acts = activations(&acts)?;
    let run = || {
        let o = Options::of("bootstrap_ci", options)?;
        stats::bootstrap(&acts, &criterion(&o)?, &resampling(&o, BootstrapArgs::default())?)
    };
    Ok(BootstrapHandle(Arc::new(thrown(run())?)))
}
