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
use crate::record::option_types::{Include, Optional, Text};
use crate::stats::{Candidate, Judge};

shared_option! {
    /// a function that decides which features with a hit pass, in place of min_layer_percentage and
    /// min_seq_percentage: |f| f.layer_share >= 0.2 && f.max > 8.0. f has feature_dim, layer_share,
    /// seq_share, max (the largest |x|), max_value, min_value, layers_hit, num_layers,
    /// positions_hit and num_positions
    pub(crate) Where: Optional<Function> = None => "the two limits";
}

shared_option! {
    /// what `where` is called in sentences, tables and stored results
    pub(crate) WhereName: Optional<Text> = None => "a function of the script";
}

option_set! {
    /// A criterion with two limits or with a function.
    pub(crate) struct OwnOptions {
        criterion: Include<CriterionOptions>;
        r#where: Where;
        where_name: WhereName;
    }
}

/// The description of a function in a criterion.
const DESCRIPTION: &str = "a function of the script";
/// The largest number of characters of a name.
const LONGEST_NAME: usize = 60;
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
    name: Option<String>,
) -> Result<(Vec<Criterion>, Option<FnPtr>)> {
    if function.is_none() {
        return match name {
            None => Ok((criteria, None)),
            Some(_) => Err(Error::bad_argument(format!("{}: `where_name` goes with `where`", o.function()))
                .hint("it is the name of the function: leave it out, or add where: |f| f.max > 8.0")),
        };
    }
    let words = described(o, name)?;
    if let Some(limit) = LIMITS.into_iter().find(|limit| o.has(limit)) {
        return Err(Error::bad_argument(format!("{}: give `where` or `{limit}`, not both", o.function()))
            .hint("the function compares itself: |f| f.layer_share >= 0.25 && f.seq_share >= 0.06"));
    }
    let own = |criterion| Criterion {
        min_layer_percentage: 0.0,
        min_seq_percentage: 0.0,
        own: Some(words.clone()),
        ..criterion
    };
    Ok((criteria.into_iter().map(own).collect(), function))
}

/// The words for a function.
///
/// # Errors
/// If the name is empty, longer than a name, or not on one line.
fn described(o: &Options, name: Option<String>) -> Result<String> {
    let Some(name) = name else { return Ok(DESCRIPTION.to_string()) };
    let name = name.trim();
    match name.is_empty() || name.chars().count() > LONGEST_NAME || name.contains(char::is_control) {
        true => Err(Error::bad_argument(format!("{}: `where_name` is {name:?}", o.function()))
            .hint(format!("give a name of 1 to {LONGEST_NAME} characters, such as \"spikes\""))),
        false => Ok(format!("{name} ({DESCRIPTION})")),
    }
}

/// The same for one criterion.
///
/// # Errors
/// The same.
pub(crate) fn one(o: &Options, own: OwnOptions) -> Result<(Criterion, Option<FnPtr>)> {
    let OwnOptions { criterion, r#where: function, where_name } = own;
    let (mut criteria, function) = with_function(o, vec![criterion], function, where_name)?;
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
