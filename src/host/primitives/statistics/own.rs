//! The option `where`: a criterion that is a function of the script.

use rhai::{Dynamic, EvalAltResult, FnPtr, NativeCallContext};

use super::criteria::CriterionOptions;
use crate::error::{Error, Result};
use crate::host::language::closures::truth;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::values::candidate::CandidateHandle;
use crate::host::values::option_types::Function;
use crate::host::values::options::Options;
use crate::record::Criterion;
use crate::record::option::{option_set, shared_option};
use crate::record::option_types::{Include, Optional};
use crate::stats::{Candidate, Judge};

shared_option! {
    /// a function that decides which features with a hit pass, in place of min_layer_percentage and
    /// min_seq_percentage: |f| f.layer_share >= 0.2 && f.max > 8.0. f has feature_dim, layer_share,
    /// seq_share, max (the largest |x|), max_value, min_value, layers_hit, num_layers,
    /// positions_hit and num_positions
    pub(crate) Where: Optional<Function> = None => "the two limits";
}

option_set! {
    /// A criterion with two limits or with a function.
    pub(crate) struct OwnOptions {
        criterion: Include<CriterionOptions>;
        r#where: Where;
    }
}

/// The description of a function in a criterion.
const DESCRIPTION: &str = "a function of the script";
/// The options in whose place a function is.
const LIMITS: [&str; 2] = ["min_layer_percentage", "min_seq_percentage"];

/// Criteria, and the function that decides in place of their limits, if there is one.
///
/// # Errors
/// If there is a function and a limit.
pub(crate) fn with_function(
    o: &Options,
    criteria: Vec<Criterion>,
    function: Option<FnPtr>,
) -> Result<(Vec<Criterion>, Option<FnPtr>)> {
    if function.is_none() {
        return Ok((criteria, None));
    }
    if let Some(limit) = LIMITS.into_iter().find(|limit| o.has(limit)) {
        return Err(Error::bad_argument(format!("{}: give `where` or `{limit}`, not both", o.function()))
            .hint("the function compares itself: |f| f.layer_share >= 0.25 && f.seq_share >= 0.06"));
    }
    let own = |criterion| Criterion {
        min_layer_percentage: 0.0,
        min_seq_percentage: 0.0,
        own: Some(DESCRIPTION.to_string()),
        ..criterion
    };
    Ok((criteria.into_iter().map(own).collect(), function))
}

/// The same for one criterion.
///
/// # Errors
/// The same.
pub(crate) fn one(o: &Options, own: OwnOptions) -> Result<(Criterion, Option<FnPtr>)> {
    let OwnOptions { criterion, r#where: function } = own;
    let (mut criteria, function) = with_function(o, vec![criterion], function)?;
    Ok((criteria.remove(0), function))
}

/// Calls statistics that ask `function` about features.
///
/// # Errors
/// That of the function as it was thrown, with its place, and those of the statistics.
pub(crate) fn asking<T>(
    context: &NativeCallContext,
    function: &FnPtr,
    statistics: impl FnOnce(&mut Judge) -> Result<T>,
) -> ScriptResult<T> {
    let mut thrown_by_it: Option<Box<EvalAltResult>> = None;
    let mut judge = |candidate: &Candidate| {
        let answer = function.call_raw(context, None, [Dynamic::from(CandidateHandle(*candidate))]);
        answer.and_then(|answer| truth("where", context, &answer)).map_err(|error| {
            thrown_by_it = Some(error);
            Error::bad_argument("the function of `where` has failed")
        })
    };
    let done = statistics(&mut judge);
    match thrown_by_it {
        Some(error) => Err(error),
        None => thrown(done),
    }
}
