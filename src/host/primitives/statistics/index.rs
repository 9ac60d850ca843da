//! An index for many queries of a record: threshold_index, count_features, feature_dims.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, Map};

use super::criteria::{SCOPES, UNITS};
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::values::handles::{ActivationsHandle, StoredHandle, activations};
use crate::host::values::options::Options;
use crate::record::Criterion;
use crate::stats::ThresholdIndex;

#[derive(Clone)]
pub(crate) struct IndexHandle(Arc<ThresholdIndex>);

pub(crate) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<IndexHandle>("index");
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
    engine.register_fn("count_features", |index: &mut IndexHandle, magnitude: f64, layers: f64, positions: f64| {
        let passing = thrown(index.0.passing(magnitude as f32, layers, positions))?;
        Ok::<_, Box<rhai::EvalAltResult>>(passing.count() as i64)
    });
    engine.register_fn("feature_dims", |index: &mut IndexHandle, magnitude: f64, layers: f64, positions: f64| {
        let passing = thrown(index.0.passing(magnitude as f32, layers, positions))?;
        Ok::<_, Box<rhai::EvalAltResult>>(passing.map(|dim| Dynamic::from(dim as i64)).collect::<Array>())
    });
}

fn register_for<T: Clone + Send + Sync + 'static>(engine: &mut Engine) {
    engine.register_fn("threshold_index", |acts: T, options: Map| index(Dynamic::from(acts), options));
    engine.register_fn("threshold_index", |acts: T| index(Dynamic::from(acts), Map::new()));
}

fn index(acts: Dynamic, options: Map) -> ScriptResult<IndexHandle> {
    let acts = activations(&acts)?;
    let made = Options::of("threshold_index", options).and_then(|o| {
        let default = Criterion::default();
        let base = Criterion {
            layer_unit: o.choice("layer_unit", UNITS)?.unwrap_or(default.layer_unit),
            scope: o.choice("scope", SCOPES)?.unwrap_or(default.scope),
            skip_positions: o.whole("skip_positions")?.unwrap_or(default.skip_positions),
            ..default
        };
        crate::host::language::weight::beside(|| ThresholdIndex::new(&acts, &base))
    });
    Ok(IndexHandle(Arc::new(thrown(made)?)))
}
