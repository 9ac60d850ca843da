//! Errors of primitives as values of scripts: maps with `kind`, `message` and `hint` that can be
//! caught.

use rhai::{Dynamic, EvalAltResult, Map, Position};

use super::bounds;
use crate::error::Error;

pub(crate) type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

/// The thrown value of an error.
pub(crate) fn as_map(error: &Error) -> Map {
    let mut map = Map::new();
    map.insert("kind".into(), error.kind.name().into());
    map.insert("message".into(), error.message.clone().into());
    map.insert("hint".into(), error.hint.clone().map_or(Dynamic::UNIT, Into::into));
    map
}

pub(crate) fn throw(error: Error) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(as_map(&error).into(), Position::NONE))
}

/// For `?` in primitives.
pub(crate) fn thrown<T>(result: crate::error::Result<T>) -> ScriptResult<T> {
    result.map_err(throw)
}

/// The text of a thrown value for people: its message, and its hint if it has one.
pub(crate) fn failure_text(error: &Dynamic) -> String {
    let Some(map) = error.read_lock::<Map>() else { return error.to_string() };
    let text = |key: &str| map.get(key).filter(|value| value.is_string()).map(Dynamic::to_string);
    let hint = text("hint").map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    format!("{}{hint}", text("message").unwrap_or_else(|| error.to_string()))
}

/// An error on one line.
pub(crate) fn told(error: &EvalAltResult) -> String {
    failure_text(&thrown_value(error))
}

/// The value that `catch` would bind.
pub(crate) fn thrown_value(error: &EvalAltResult) -> Dynamic {
    match error.unwrap_inner() {
        EvalAltResult::ErrorRuntime(value, _) => value.clone(),
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::STOPPED => {
            as_map(&Error::interrupted()).into()
        }
        other => {
            let mut plain = Map::new();
            plain.insert("kind".into(), "script".into());
            let by_bound = if let EvalAltResult::ErrorTerminated(..) = other { bounds::told(other) } else { None };
            let (message, hint) = by_bound.map_or_else(|| (other.to_string(), None), |(what, hint)| (what, Some(hint)));
            plain.insert("message".into(), message.into());
            plain.insert("hint".into(), hint.map_or(Dynamic::UNIT, Into::into));
            plain.into()
        }
    }
}
