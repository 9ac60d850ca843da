//! Primitives for repeated queries of a record: sweep_criteria, sequences_needed, per_sequence,
//! layer_agreement.

use rhai::{Dynamic, Engine, Map};

use super::criteria::{CriterionOptions, CurveOptions, SweepOptions};
use super::own::{OwnOptions, Where, WhereName, asking, one, with_function};
use crate::error::{Error, Result};
use crate::host::language::json::record_to_dynamic;
use crate::host::language::problem::thrown;
use crate::host::values::findings::{self, DetectionHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::Criterion;
use crate::record::option::{ReadFrom, option_set};
use crate::record::option_types::Include;
use crate::stats;

option_set! {
    /// The options of sequences_needed.
    pub(crate) struct SizeOptions {
        criterion: Include<OwnOptions>;
        resampling: Include<CurveOptions>;
    }
}

option_set! {
    /// The options of sweep_criteria.
    pub(crate) struct OwnSweepOptions {
        sweep: Include<SweepOptions>;
        r#where: Where;
        where_name: WhereName;
    }
}

pub(crate) const SWEEP_CRITERIA: Declared<OwnSweepOptions> = Declared::new(
    "sweep_criteria",
    &[
        "sweep_criteria(acts: activations, options: map) -> array",
        "sweep_criteria(stored: results, options: map) -> array",
    ],
    "Every combination of the values given, each with its bootstrap: one row per criterion.",
    acts!("print(acts.sweep_criteria(#{ magnitude_threshold: [3.0, 4.0], n_resamples: 100 }).len());"),
);

pub(crate) const SEQUENCES_NEEDED: Declared<SizeOptions> = Declared::new(
    "sequences_needed",
    &[
        "sequences_needed(acts: activations, options?: map) -> map",
        "sequences_needed(stored: results, options?: map) -> map",
    ],
    "How far the classification, and the set of passing features, depend on the number of sequences: how many of them suffice for \
     either, and how many would decide the class.",
    acts!("print(acts.sequences_needed(#{ magnitude_threshold: 3.0, n_resamples: 100 }).sufficient);"),
);

pub(crate) const PER_SEQUENCE: Declared<CriterionOptions> = Declared::new(
    "per_sequence",
    &[
        "per_sequence(acts: activations, options?: map) -> array",
        "per_sequence(stored: results, options?: map) -> array",
    ],
    "The criterion within every sequence: one row each, for tests between models or settings. The threshold must be a rung of \
     the ladder.",
    acts!("print(acts.per_sequence(#{ magnitude_threshold: 3.0 }).map(|row| row.num_features));"),
);

pub(crate) const LAYER_AGREEMENT: Declared<NoOptions> = Declared::new(
    "layer_agreement",
    &["layer_agreement(found: detection) -> float"],
    "Mean share of norms that pairs of passing features have in common, 0 to 1; () for fewer than two.",
    acts!("print(layer_agreement(acts.detect_outliers(#{ magnitude_threshold: 3.0 })));"),
);

pub(crate) fn register(engine: &mut Engine) {
    SWEEP_CRITERIA.register_asking_on_records(engine, |context, questions, o| {
        let acts = questions.activations();
        let OwnSweepOptions { sweep, r#where: function, where_name } = thrown(OwnSweepOptions::read(o))?;
        let (criteria, function) =
            thrown(criteria(&sweep).and_then(|all| with_function(o, all, function, where_name)))?;
        let rows = match function {
            None => thrown(stats::sweep(acts, &criteria, &sweep.resampling))?,
            Some(f) => asking(context, &f, |judge| stats::sweep_where(acts, &criteria, &sweep.resampling, judge))?,
        };
        Ok(record_to_dynamic(&rows))
    });
    SEQUENCES_NEEDED.register_asking_on_records(engine, |context, questions, o| {
        let acts = questions.activations();
        let SizeOptions { criterion, resampling: args } = thrown(SizeOptions::read(o))?;
        let (criterion, function) = thrown(one(o, criterion))?;
        let needed = match function {
            None => thrown(stats::sequences_needed(acts, &criterion, &args))?,
            Some(f) => asking(context, &f, |judge| stats::sequences_needed_where(acts, &criterion, &args, judge))?,
        };
        Ok(record_to_dynamic(&needed))
    });
    PER_SEQUENCE.register_on_records(engine, |acts, criterion| {
        stats::check_exact(acts, &criterion)?;
        stats::per_sequence(acts, &criterion).map(|rows| record_to_dynamic(&rows))
    });
    engine.register_fn(LAYER_AGREEMENT.name(), |found: Map| thrown(layer_agreement(&found.into())));
    engine.register_fn(LAYER_AGREEMENT.name(), |found: DetectionHandle| thrown(layer_agreement(&Dynamic::from(found))));
}

/// Every combination of the given values.
fn criteria(o: &SweepOptions) -> Result<Vec<Criterion>> {
    let lengths = [
        o.magnitude_threshold.len(),
        o.min_layer_percentage.len(),
        o.min_seq_percentage.len(),
        o.systematic_layers.len(),
        o.skip_positions.len(),
        o.layer_unit.len(),
    ];
    let combinations = lengths.into_iter().fold(1usize, usize::saturating_mul);
    if combinations > stats::MAX_CRITERIA {
        return Err(Error::bad_argument(format!("sweep_criteria: {combinations} combinations of the values given"))
            .hint(format!("every combination is a row, at most {}: give fewer values", stats::MAX_CRITERIA)));
    }
    let mut all = Vec::new();
    for &magnitude in &o.magnitude_threshold {
        for &min_layer_percentage in &o.min_layer_percentage {
            for &min_seq_percentage in &o.min_seq_percentage {
                for &systematic_layers in &o.systematic_layers {
                    for &layer_unit in &o.layer_unit {
                        for &skip_positions in &o.skip_positions {
                            all.push(Criterion {
                                magnitude_threshold: magnitude as f32,
                                min_layer_percentage,
                                min_seq_percentage,
                                systematic_layers,
                                layer_unit,
                                skip_positions,
                                ..Criterion::default()
                            });
                        }
                    }
                }
            }
        }
    }
    Ok(all)
}

fn layer_agreement(found: &Dynamic) -> Result<Dynamic> {
    let found = findings::detection(found, "layer_agreement: this")?;
    Ok(stats::layer_agreement(&found).map_or(Dynamic::UNIT, Dynamic::from))
}
