//! Primitives of the statistics: detect_outliers, bootstrap_ci. Both work on fresh and on stored activations.

use rhai::{Dynamic, Engine, Map};

use super::json::to_dynamic;
use super::options::Options;
use super::problem::{ScriptResult, thrown};
use super::sweeps;
use super::values::{ActivationsHandle, StoredHandle, activations};
use crate::error::Result;
use crate::record::{BootstrapArgs, Criterion, LayerUnit, Method, Scope, plain};
use crate::stats;

pub const UNITS: &[(&str, LayerUnit)] = &[("norm", LayerUnit::Norm), ("block", LayerUnit::Block)];
pub const SCOPES: &[(&str, Scope)] = &[("pooled", Scope::Pooled), ("per_sequence", Scope::PerSequence)];
pub const METHODS: &[(&str, Method)] = &[("percentile", Method::Percentile), ("bca", Method::Bca)];

pub const CRITERION: [&str; 7] = [
    "magnitude_threshold",
    "min_layer_percentage",
    "min_seq_percentage",
    "layer_unit",
    "scope",
    "skip_positions",
    "systematic_layers",
];
pub const BOOTSTRAP: [&str; 11] = [
    "magnitude_threshold",
    "min_layer_percentage",
    "min_seq_percentage",
    "layer_unit",
    "scope",
    "skip_positions",
    "systematic_layers",
    "n_resamples",
    "confidence_level",
    "method",
    "seed",
];

pub fn register(engine: &mut Engine) {
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
}

fn register_for<T: Clone + Send + Sync + 'static>(engine: &mut Engine) {
    engine.register_fn("detect_outliers", |acts: T, options: Map| detect(Dynamic::from(acts), options));
    engine.register_fn("detect_outliers", |acts: T| detect(Dynamic::from(acts), Map::new()));
    engine.register_fn("bootstrap_ci", |acts: T, options: Map| bootstrap(Dynamic::from(acts), options));
    engine.register_fn("bootstrap_ci", |acts: T| bootstrap(Dynamic::from(acts), Map::new()));
}

pub fn criterion(o: &Options) -> Result<Criterion> {
    let of_lists = |key: &str, value: &str| match sweeps::takes_lists_of(key) {
        true => format!("acts.sweep_criteria(#{{ {key}: {value} }}) answers every combination of lists"),
        false => format!("call it once for each: for value in {value} {{ … }}"),
    };
    o.single(&CRITERION, of_lists)?;
    let default = Criterion::default();
    Ok(Criterion {
        magnitude_threshold: o.float("magnitude_threshold")?.map_or(default.magnitude_threshold, |t| t as f32),
        min_layer_percentage: o.float("min_layer_percentage")?.unwrap_or(default.min_layer_percentage),
        min_seq_percentage: o.float("min_seq_percentage")?.unwrap_or(default.min_seq_percentage),
        layer_unit: o.choice("layer_unit", UNITS)?.unwrap_or(default.layer_unit),
        scope: o.choice("scope", SCOPES)?.unwrap_or(default.scope),
        skip_positions: o.whole("skip_positions")?.unwrap_or(default.skip_positions),
        systematic_layers: o.float("systematic_layers")?.unwrap_or(default.systematic_layers),
    })
}

/// How to resample, of what is given.
pub fn resampling(o: &Options, default: BootstrapArgs) -> Result<BootstrapArgs> {
    Ok(BootstrapArgs {
        n_resamples: o.whole("n_resamples")?.unwrap_or(default.n_resamples),
        confidence_level: o.float("confidence_level")?.unwrap_or(default.confidence_level),
        method: o.choice("method", METHODS)?.unwrap_or(default.method),
        seed: o.seed("seed")?.unwrap_or(default.seed),
    })
}

fn detect(acts: Dynamic, options: Map) -> ScriptResult<Dynamic> {
    let acts = activations(&acts)?;
    let found = Options::of("detect_outliers", options)
        .and_then(|o| criterion(&o))
        .and_then(|criterion| stats::detect(&acts, &criterion));
    Ok(to_dynamic(&plain(&thrown(found)?)))
}

fn bootstrap(acts: Dynamic, options: Map) -> ScriptResult<Dynamic> {
    let acts = activations(&acts)?;
    let run = || {
        let o = Options::of("bootstrap_ci", options)?;
        stats::bootstrap(&acts, &criterion(&o)?, &resampling(&o, BootstrapArgs::default())?)
    };
    Ok(to_dynamic(&plain(&thrown(run())?)))
}
