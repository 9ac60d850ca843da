//! The limits of a script: steps, time, depth and the size of its values; its permissions; and the
//! messages when it exceeds a limit. docs/security.md lists the limits.

use std::path::PathBuf;
use std::time::Duration;

use rhai::{Engine, EvalAltResult, Position};

/// Enough for a few minutes of script code alone.
pub const MAX_OPERATIONS: u64 = 1_000_000_000;
/// Enough for ordinary recursion, and small enough to end endless recursion before the stack
/// overflows.
const MAX_CALL_LEVELS: usize = 128;
const MAX_EXPRESSION_DEPTH: usize = 256;
/// The largest string in bytes.
pub(crate) const MAX_STRING: usize = 64 << 20;
/// The largest number of items of an array, including nested ones.
pub(crate) const MAX_ARRAY: usize = 4_000_000;
/// The largest number of entries of a map, including nested ones.
pub(crate) const MAX_MAP: usize = 1_000_000;
/// The most memory of all values of scripts together, in bytes.
pub(crate) const MAX_MEMORY: u64 = 1 << 30;
/// The largest script or module in bytes.
pub(crate) const MAX_SCRIPT: u64 = 4 << 20;
/// The largest number of comparisons of names while a script or module is parsed; they take about
/// two seconds.
pub(crate) const MAX_COMPARISONS: u64 = 100_000_000;
/// The error of a script with too many names.
pub(crate) const TOO_MANY_NAMES: &str = "too many names";
/// The error of a script that exceeds its time.
pub(crate) const OUT_OF_TIME: &str = "out of time";
/// The error of a script whose calls and expressions fill the stack.
pub(crate) const TOO_DEEP: &str = "too deep";
/// The error of a script whose values are nested too deeply.
pub(crate) const TOO_NESTED: &str = "too nested";
/// The error of a script whose values take too much memory.
pub(crate) const TOO_HEAVY: &str = "too heavy";
/// The error of a script that continues long after Ctrl-C.
pub(crate) const STOPPED: &str = "interrupted";
/// The error of a script that takes too many steps, over all threads.
pub(crate) const TOO_MANY_STEPS: &str = "too many steps";

/// Limits and permissions of a script.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Steps of the language.
    pub operations: u64,
    /// Total time, checked between steps.
    pub time: Option<Duration>,
    /// The most bytes of its values together.
    pub memory: u64,
    /// True if `run_command` may run commands on this machine.
    pub commands_here: bool,
    pub allowed: Allowed,
}

/// Paths outside of the project that a script may read and write, because the user allows it.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Folders and files for texts and ids.
    pub reads: Vec<PathBuf>,
    /// Folders in which it may write.
    pub writes: Vec<PathBuf>,
}

impl Default for Bounds {
    fn default() -> Self {
        let (operations, memory) = (MAX_OPERATIONS, MAX_MEMORY);
        Self { operations, time: None, memory, commands_here: false, allowed: Allowed::default() }
    }
}

/// True for an error that ends the whole run: `try` cannot catch it, and `parallel` and
/// `assert_throws` pass it on.
pub(crate) fn ends_the_run(error: &EvalAltResult) -> bool {
    match error.unwrap_inner() {
        EvalAltResult::ErrorTooManyOperations(_) => true,
        EvalAltResult::ErrorTerminated(why, _) => {
            [TOO_MANY_STEPS, OUT_OF_TIME, TOO_HEAVY, STOPPED].contains(&why.to_string().as_str())
        }
        _ => false,
    }
}

/// Sets the limits of nesting. Those of sizes are checked by `weight`, because Rhai would measure
/// the whole array at each call on it.
pub(crate) fn nesting(engine: &mut Engine) {
    engine.set_max_call_levels(MAX_CALL_LEVELS).set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH);
}

/// The error of a value that is too large.
pub(crate) fn too_large(what: &str) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorDataTooLarge(what.to_string(), Position::NONE))
}

/// Message and hint of the error of an exceeded limit.
pub(crate) fn told(error: &EvalAltResult) -> Option<(String, String)> {
    let reason = match error {
        EvalAltResult::ErrorTerminated(why, _) => why.to_string(),
        EvalAltResult::ErrorTooManyOperations(_) => TOO_MANY_STEPS.to_string(),
        EvalAltResult::ErrorStackOverflow(_) => {
            let message = "functions call each other too deeply: is there a recursion without an end?";
            return Some((message.to_string(), "128 levels are allowed; a loop needs none".to_string()));
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => {
            let hint = "a script may hold strings of 64 MiB, arrays of 4,000,000 items and maps of 1,000,000 entries";
            return Some((format!("a value is too large: {}", what.to_lowercase()), hint.to_string()));
        }
        _ => return None,
    };
    let (message, hint) = match reason.as_str() {
        OUT_OF_TIME => (
            "the script has run longer than it may",
            "its time was given with `--max-minutes`; finished results are kept",
        ),
        TOO_DEEP => (
            "calls and expressions inside each other fill the stack: is there a recursion without an end?",
            "a loop needs no stack",
        ),
        TOO_NESTED => (
            "a value is nested too deeply",
            "arrays, maps and closures inside each other may be 512 deep: keep a list of them instead",
        ),
        TOO_HEAVY => (
            "the values of the script take more memory than they may",
            "`outlier run --max-memory 4GiB SCRIPT` allows more, up to half of what `ulimit -v` leaves; models and records are \
             not counted",
        ),
        TOO_MANY_STEPS => (
            "the script has taken more steps than it may: is there a loop without an end?",
            "`outlier run --max-steps N SCRIPT` allows more",
        ),
        _ => return None,
    };
    Some((message.to_string(), hint.to_string()))
}
