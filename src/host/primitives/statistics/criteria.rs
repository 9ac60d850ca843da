//! Options of criteria and of resampling, which several primitives share.

use std::marker::PhantomData;

use crate::error::Result;
use crate::host::values::option_types::ReadOption;
use crate::host::values::options::Options;
use crate::record::option::{OptionSet, option_set, shared_option};
use crate::record::option_types::{
    Beside, Choice, Choices, Float, Float32, Floats, Include, SeedNumber, Whole, Wholes, Word, same_option,
};
use crate::record::{BootstrapArgs, Criterion, LayerUnit, Method, Scope};

/// Enough resamples for a curve or for many criteria. The intervals of a result use ten times as
/// many.
const CURVE_RESAMPLES: usize = 1000;

impl Word for LayerUnit {
    const WORDS: &'static [(&'static str, Self)] = &[("norm", Self::Norm), ("block", Self::Block)];
}

impl Word for Scope {
    const WORDS: &'static [(&'static str, Self)] = &[("pooled", Self::Pooled), ("per_sequence", Self::PerSequence)];
}

impl Word for Method {
    const WORDS: &'static [(&'static str, Self)] = &[("percentile", Self::Percentile), ("bca", Self::Bca)];
}

shared_option! {
    /// what a layer is: each norm, or each decoder layer
    pub(crate) UnitOption: Choice<LayerUnit> = Criterion::default().layer_unit;
}

shared_option! {
    /// "pooled" asks once, over all sequences together; "per_sequence" asks for every sequence by
    /// itself and puts all answers into one list, so that a feature stands there once for each
    /// sequence in which it passes
    pub(crate) ScopeOption: Choice<Scope> = Criterion::default().scope;
}

shared_option! {
    /// 0 takes all positions, 1 leaves out the first of each sequence; no other number is recorded
    pub(crate) SkipPositions: Whole = Criterion::default().skip_positions;
}

/// An option of which `sweep_criteria` takes a list, and other primitives one value.
pub(crate) struct Single<T>(PhantomData<T>);

same_option!(Single);

impl<T: ReadOption> ReadOption for Single<T> {
    fn read(o: &Options, key: &str) -> Result<Option<T::Value>> {
        o.single(key, |value| match SweepOptions::OPTIONS.iter().any(|option| option.key == key) {
            true => format!("acts.sweep_criteria(#{{ {key}: {value} }}) answers every combination of lists"),
            false => format!("call it once for each: for value in {value} {{ … }}"),
        })?;
        T::read(o, key)
    }
}

option_set! {
    /// The options of a criterion.
    pub(crate) CriterionOptions for Criterion {
        /// |x| from which a value is a hit; a rung of the ladder
        magnitude_threshold: Single<Float32> = Criterion::default().magnitude_threshold;
        /// share of layers that a feature must reach, 0 to 1
        min_layer_percentage: Single<Float> = Criterion::default().min_layer_percentage;
        /// share of positions that a feature must reach, 0 to 1
        min_seq_percentage: Single<Float> = Criterion::default().min_seq_percentage;
        layer_unit: Single<UnitOption>;
        scope: Single<ScopeOption>;
        skip_positions: Single<SkipPositions>;
        /// layer share from which a feature is SYSTEMATIC
        systematic_layers: Single<Float> = Criterion::default().systematic_layers;
        /// The description of a function that decides in place of limits, which `where` gives.
        own: Beside<Option<String>>;
    }
}

option_set! {
    /// The positions that a figure of a record shows.
    pub(crate) struct PositionOptions {
        skip_positions: SkipPositions;
    }
}

shared_option! {
    /// between 0 and 1
    pub(crate) ConfidenceLevel: Float = BootstrapArgs::default().confidence_level;
}

shared_option! {
    /// percentile is used where BCa is undefined
    pub(crate) IntervalMethod: Choice<Method> = BootstrapArgs::default().method;
}

shared_option! {
    /// equal seeds give equal intervals
    pub(crate) ResamplingSeed: SeedNumber = BootstrapArgs::default().seed => "a fixed one";
}

option_set! {
    /// The options of resampling.
    pub(crate) ResamplingOptions for BootstrapArgs {
        /// number of resamples
        n_resamples: Whole = BootstrapArgs::default().n_resamples;
        confidence_level: ConfidenceLevel;
        method: IntervalMethod;
        seed: ResamplingSeed;
    }
}

option_set! {
    /// The options of resampling for a curve or for many criteria.
    pub(crate) CurveOptions for BootstrapArgs {
        /// number of resamples
        n_resamples: Whole = CURVE_RESAMPLES;
        confidence_level: ConfidenceLevel;
        method: IntervalMethod;
        seed: ResamplingSeed;
    }
}

option_set! {
    /// The options of sweep_criteria.
    pub(crate) struct SweepOptions {
        /// one value or several
        magnitude_threshold: Floats = vec![Criterion::default().magnitude_threshold.into()];
        /// one value or several
        min_layer_percentage: Floats = vec![Criterion::default().min_layer_percentage];
        /// one value or several
        min_seq_percentage: Floats = vec![Criterion::default().min_seq_percentage];
        /// "norm", "block" or both
        layer_unit: Choices<LayerUnit> = vec![Criterion::default().layer_unit];
        /// 0, 1 or both
        skip_positions: Wholes = vec![Criterion::default().skip_positions];
        /// one value or several
        systematic_layers: Floats = vec![Criterion::default().systematic_layers];
        resampling: Include<CurveOptions>;
    }
}
