//! Primitives for repeated queries of a record: sweep_criteria, sequences_needed, per_sequence,
//! layer_agreement.

use rhai::{Dynamic, Engine, Map};

use super::criteria::{BOOTSTRAP, CRITERION, SWEEP, UNITS, criterion, resampling};
use crate::error::{Error, Result};
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::values::findings::{self, DetectionHandle};
use crate::host::values::handles::{ActivationsHandle, StoredHandle, activations};
use crate::host::values::options::{MAX_COUNT, Options};
use crate::record::{BootstrapArgs, Criterion, plain};
use crate::stats;

/// Enough for a curve. The intervals of a result use ten times as many.
const RESAMPLES: usize = 1000;

pub(crate) fn register(engine: &mut Engine) {
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
    // Mean share of norms that pairs of passing features have in common, 0 to 1, or () for fewer
    // than two features.
    // let agreement = layer_agreement(acts.detect_outliers(#{ magnitude_threshold: 3.0 }));
    engine.register_fn("layer_agreement", |found: Map| thrown(layer_agreement(&found.into())));
    engine.register_fn("layer_agreement", |found: DetectionHandle| thrown(layer_agreement(&Dynamic::from(found))));
}

fn register_for<T: Clone + Send + Sync + 'static>(engine: &mut Engine) {
    // Every combination of the given values with its bootstrap: one row per criterion.
    // let limits = [0.25, 0.5];
    // let rows = acts.sweep_criteria(#{ min_layer_percentage: limits });
    engine.register_fn("sweep_criteria", |acts: T, options: Map| sweep(Dynamic::from(acts), options));
    // The dependence of the classification on the number of sequences, and the number that would
    // decide it.
    // let needed = acts.sequences_needed(#{ magnitude_threshold: 3.0 }); print(needed.sufficient);
    engine.register_fn("sequences_needed", |acts: T, options: Map| needed(Dynamic::from(acts), options));
    engine.register_fn("sequences_needed", |acts: T| needed(Dynamic::from(acts), Map::new()));
    // The criterion for every sequence: one row each, for tests between models or settings.
    // let counts = acts.per_sequence(#{ magnitude_threshold: 3.0 }).map(|row| row.num_features);
    engine.register_fn("per_sequence", |acts: T, options: Map| per_sequence(Dynamic::from(acts), options));
    engine.register_fn("per_sequence", |acts: T| per_sequence(Dynamic::from(acts), Map::new()));
}

/// Every combination of the given values.
fn criteria(o: &Options) -> Result<Vec<Criterion>> {
    let default = Criterion::default();
    let numbers = |key: &str, default: f64| Ok::<_, Error>(o.number_or_numbers(key)?.unwrap_or_else(|| vec![default]));
    let magnitudes = numbers("magnitude_threshold", default.magnitude_threshold.into())?;
    let layers = numbers("min_layer_percentage", default.min_layer_percentage)?;
    let positions = numbers("min_seq_percentage", default.min_seq_percentage)?;
    let systematic = numbers("systematic_layers", default.systematic_layers)?;
    let skips = numbers("skip_positions", default.skip_positions as f64)?;
    if let Some(wrong) = skips.iter().find(|skip| !(skip.fract() == 0.0 && (0.0..=MAX_COUNT as f64).contains(*skip))) {
        return Err(Error::bad_argument(format!("sweep_criteria: `skip_positions` is {wrong}"))
            .hint(format!("give whole numbers from 0 to {MAX_COUNT}")));
    }
    let unit = |word: &String| {
        let known = UNITS.iter().find(|(name, _)| name == word).map(|(_, unit)| *unit);
        known.ok_or_else(|| {
            Error::bad_argument(format!("sweep_criteria: `layer_unit` is {word:?}"))
                .hint(crate::suggest::hint(word, UNITS.iter().map(|(name, _)| *name)))
        })
    };
    let units = match o.string_or_strings("layer_unit")? {
        None => vec![default.layer_unit],
        Some(words) => words.iter().map(unit).collect::<Result<_>>()?,
    };
    let lengths = [magnitudes.len(), layers.len(), positions.len(), systematic.len(), skips.len(), units.len()];
    let combinations = lengths.into_iter().fold(1usize, usize::saturating_mul);
    if combinations > stats::MAX_CRITERIA {
        return Err(Error::bad_argument(format!("sweep_criteria: {combinations} combinations of the values given"))
            .hint(format!("every combination is a row, at most {}: give fewer values", stats::MAX_CRITERIA)));
    }
    let mut all = Vec::new();
    for &magnitude in &magnitudes {
        for &min_layer_percentage in &layers {
            for &min_seq_percentage in &positions {
                for &systematic_layers in &systematic {
                    for &layer_unit in &units {
                        for &skip in &skips {
                            all.push(Criterion {
                                magnitude_threshold: magnitude as f32,
                                min_layer_percentage,
                                min_seq_percentage,
                                systematic_layers,
                                layer_unit,
                                skip_positions: skip as usize,
                                ..default.clone()
                            });
                        }
                    }
                }
            }
        }
    }
    Ok(all)
}

fn sweep(acts: Dynamic, options: Map) -> ScriptResult<Dynamic> {
    let acts = activations(&acts)?;
    let run = || {
        let o = Options::new("sweep_criteria", options, &SWEEP)?;
        let args = resampling(&o, BootstrapArgs { n_resamples: RESAMPLES, ..BootstrapArgs::default() })?;
        stats::sweep(&acts, &criteria(&o)?, &args)
    };
    Ok(to_dynamic(&plain(&thrown(run())?)))
}

fn needed(acts: Dynamic, options: Map) -> ScriptResult<Dynamic> {
    let acts = activations(&acts)?;
    let run = || {
        let o = Options::new("sequences_needed", options, &BOOTSTRAP)?;
        let args = resampling(&o, BootstrapArgs { n_resamples: RESAMPLES, ..BootstrapArgs::default() })?;
        stats::sequences_needed(&acts, &criterion(&o)?, &args)
    };
    Ok(to_dynamic(&plain(&thrown(run())?)))
}

fn per_sequence(acts: Dynamic, options: Map) -> ScriptResult<Dynamic> {
    let acts = activations(&acts)?;
    let run = || stats::per_sequence(&acts, &criterion(&Options::new("per_sequence", options, &CRITERION)?)?);
    Ok(to_dynamic(&plain(&thrown(run())?)))
}

fn layer_agreement(found: &Dynamic) -> Result<Dynamic> {
    let found = findings::detection(found, "layer_agreement: this")?;
    Ok(stats::layer_agreement(&found).map_or(Dynamic::UNIT, Dynamic::from))
}
