//! Options of criteria and of resampling, which several primitives share.

use crate::error::Result;
use crate::host::values::options::Options;
use crate::record::{BootstrapArgs, Criterion, LayerUnit, Method, Scope};

/// Values of `layer_unit`.
pub(crate) const UNITS: &[(&str, LayerUnit)] = &[("norm", LayerUnit::Norm), ("block", LayerUnit::Block)];
/// Values of `scope`.
pub(crate) const SCOPES: &[(&str, Scope)] = &[("pooled", Scope::Pooled), ("per_sequence", Scope::PerSequence)];
const METHODS: &[(&str, Method)] = &[("percentile", Method::Percentile), ("bca", Method::Bca)];

/// Options of a criterion.
pub(crate) const CRITERION: [&str; 7] = [
    "magnitude_threshold",
    "min_layer_percentage",
    "min_seq_percentage",
    "layer_unit",
    "scope",
    "skip_positions",
    "systematic_layers",
];
/// Options of a criterion and of resampling.
pub(crate) const BOOTSTRAP: [&str; 11] = [
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
/// Options of sweep_criteria.
pub(crate) const SWEEP: [&str; 10] = [
    "magnitude_threshold",
    "min_layer_percentage",
    "min_seq_percentage",
    "layer_unit",
    "skip_positions",
    "systematic_layers",
    "n_resamples",
    "confidence_level",
    "method",
    "seed",
];

/// Reads a criterion.
pub(crate) fn criterion(o: &Options) -> Result<Criterion> {
    let of_lists = |key: &str, value: &str| match takes_lists_of(key) {
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

/// Reads the options of resampling.
pub(crate) fn resampling(o: &Options, default: BootstrapArgs) -> Result<BootstrapArgs> {
    Ok(BootstrapArgs {
        n_resamples: o.whole("n_resamples")?.unwrap_or(default.n_resamples),
        confidence_level: o.float("confidence_level")?.unwrap_or(default.confidence_level),
        method: o.choice("method", METHODS)?.unwrap_or(default.method),
        seed: o.seed("seed")?.unwrap_or(default.seed),
    })
}

/// True if sweep_criteria takes several values of this option.
fn takes_lists_of(key: &str) -> bool {
    CRITERION.contains(&key) && SWEEP.contains(&key)
}
