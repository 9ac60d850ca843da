//! Errors on their way into a script and out of it: maps with `kind`, `message` and `hint` that a script can catch.

use rhai::{Dynamic, EvalAltResult, Map, Position};

use crate::error::Error;

pub type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

/// The thrown value of an error.
pub fn as_map(error: &Error) -> Map {
    let mut map = Map::new();
    map.insert("kind".into(), error.kind.name().into());
    map.insert("message".into(), error.message.clone().into());
    map.insert("hint".into(), error.hint.clone().map_or(Dynamic::UNIT, Into::into));
    map
}

pub fn throw(error: Error) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(as_map(&error).into(), Position::NONE))
}

/// For `?` in primitives.
pub fn thrown<T>(result: crate::error::Result<T>) -> ScriptResult<T> {
    result.map_err(throw)
}
