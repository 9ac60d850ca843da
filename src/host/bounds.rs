//! What a script may use up: steps, time, depth, and the size of its values; what it may do; and what is said where a bound ends
//! it. docs/security.md lists the bounds.

use std::path::PathBuf;
use std::time::Duration;

use rhai::{Engine, EvalAltResult};

/// A few minutes of nothing but script.
pub const MAX_OPERATIONS: u64 = 1_000_000_000;
/// Deep enough for honest recursion, shallow enough to end a runaway before the stack does.
const MAX_CALL_LEVELS: usize = 128;
const MAX_EXPRESSION_DEPTH: usize = 256;
/// Bytes of one string.
pub const MAX_STRING: usize = 64 << 20;
/// Items of one array, inner ones counted.
pub const MAX_ARRAY: usize = 4_000_000;
/// Entries of one map, inner ones counted.
pub const MAX_MAP: usize = 1_000_000;
/// Memory that the values of scripts may take together, bytes.
pub const MAX_MEMORY: u64 = 1 << 30;
/// Bytes of the text of a script or module.
pub const MAX_SCRIPT: u64 = 4 << 20;
/// What ends a script whose time is over.
pub const OUT_OF_TIME: &str = "out of time";
/// What ends a script whose calls and expressions fill the stack.
pub const TOO_DEEP: &str = "too deep";
/// What ends a script whose values are nested too deeply.
pub const TOO_NESTED: &str = "too nested";
/// What ends a script whose values take too much memory.
pub const TOO_HEAVY: &str = "too heavy";
/// What ends a script that goes on long after Ctrl-C.
pub const STOPPED: &str = "interrupted";
/// What ends a script that has taken too many steps, on whichever threads.
pub const TOO_MANY_STEPS: &str = "too many steps";

/// What a script may use up, and do.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Steps of the language.
    pub operations: u64,
    /// In all; looked at between two steps.
    pub time: Option<Duration>,
    /// Bytes that its values may take together.
    pub memory: u64,
    /// Whether `run_command` may run commands on this machine.
    pub commands_here: bool,
    pub allowed: Allowed,
}

/// What a script may read and write beside the project, since its user says so.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Folders and files that texts and ids may come from.
    pub reads: Vec<PathBuf>,
    /// Folders below which it may write.
    pub writes: Vec<PathBuf>,
}

impl Default for Bounds {
    fn default() -> Self {
        let (operations, memory) = (MAX_OPERATIONS, MAX_MEMORY);
        Self { operations, time: None, memory, commands_here: false, allowed: Allowed::default() }
    }
}

/// Whether an error ends the whole run: what `try` cannot catch, and `parallel` and `assert_throws` pass on.
pub fn ends_the_run(error: &EvalAltResult) -> bool {
    match error.unwrap_inner() {
        EvalAltResult::ErrorTooManyOperations(_) => true,
        EvalAltResult::ErrorTerminated(why, _) => {
            [TOO_MANY_STEPS, OUT_OF_TIME, TOO_HEAVY, STOPPED].contains(&why.to_string().as_str())
        }
        _ => false,
    }
}

/// Bounds of values and of nesting.
pub fn sizes(engine: &mut Engine) {
    engine.set_max_call_levels(MAX_CALL_LEVELS).set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH);
    engine.set_max_string_size(MAX_STRING).set_max_array_size(MAX_ARRAY).set_max_map_size(MAX_MAP);
}

/// Message and hint of an error that a bound has made.
pub fn told(error: &EvalAltResult) -> Option<(String, String)> {
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
            "`outlier run --max-memory 4GiB SCRIPT` allows more; models and records are not counted",
        ),
        TOO_MANY_STEPS => (
            "the script has taken more steps than it may: is there a loop without an end?",
            "`outlier run --max-steps N SCRIPT` allows more",
        ),
        _ => return None,
    };
    Some((message.to_string(), hint.to_string()))
}
