//! Errors of the language as scripts catch them. Rhai gives a map with `error` and `message`; the
//! kind and the hint that errors of primitives have are added when a script reads it.

use rhai::{Dynamic, Engine, EvalAltResult, INT, ImmutableString, Map, Position};

use super::hints;
use crate::host::language::{catching, weight};

/// The kind of an error of the language, and of a text that a script has thrown.
const OF_THE_LANGUAGE: &str = "script";
const THROWN: &str = "thrown";

/// Adds them when a variable is read that holds such a map. The hook replaces that of
/// `usage::enforce`, and checks the sizes of values as it does.
pub(crate) fn register(engine: &mut Engine) {
    #[allow(deprecated)] // the hook is marked volatile, not deprecated
    engine.on_var(|name, _, mut context| {
        weight::bounded(&context)?;
        if !catching::is_name(name) {
            return Ok(None);
        }
        if context.scope().get(name).is_some_and(is_incomplete)
            && let Some(value) = context.scope_mut().get_mut(name)
            && let Some(mut map) = value.write_lock::<Map>()
        {
            complete(&mut map);
        }
        Ok(None)
    });
    // A thrown text is an error as well.
    engine.register_get("message", |text: &mut ImmutableString| text.clone());
    engine.register_get("kind", |_: &mut ImmutableString| THROWN);
    engine.register_get("hint", |_: &mut ImmutableString| ());
}

/// True for the map of an error of the language without a kind.
fn is_incomplete(value: &Dynamic) -> bool {
    if !value.is_map() || value.is_locked() {
        return false;
    }
    value.read_lock::<Map>().is_some_and(|map| {
        !map.contains_key("kind") && map.get("error").is_some_and(Dynamic::is_string) && map.contains_key("message")
    })
}

fn complete(map: &mut Map) {
    let error = rebuilt(map);
    let told = error.as_ref().map(|error| hints::of_run(error, ""));
    // What the language says of it helps nobody.
    if let (Some(EvalAltResult::ErrorDataRace(..)), Some((message, _))) = (&error, &told) {
        map.insert("message".into(), message.into());
    }
    let hint = told.and_then(|(_, hint)| hint);
    map.insert("kind".into(), OF_THE_LANGUAGE.into());
    map.insert("hint".into(), hint.map_or(Dynamic::UNIT, Into::into));
}

/// The error that Rhai has made this map of, as far as its hint needs it.
fn rebuilt(map: &Map) -> Option<EvalAltResult> {
    type E = EvalAltResult;
    const NONE: Position = Position::NONE;
    let text = |key: &str| map.get(key).map(Dynamic::to_string);
    let number = |key: &str| map.get(key).and_then(|value| value.as_int().ok());
    let size = |key: &str| number(key).and_then(|value| usize::try_from(value).ok());
    let index = || number("index").unwrap_or(0 as INT);
    Some(match text("error")?.as_str() {
        "ErrorFunctionNotFound" => E::ErrorFunctionNotFound(text("function")?, NONE),
        "ErrorVariableNotFound" => E::ErrorVariableNotFound(text("variable")?, NONE),
        "ErrorPropertyNotFound" => E::ErrorPropertyNotFound(text("variable")?, NONE),
        "ErrorAssignmentToConstant" => E::ErrorAssignmentToConstant(text("variable")?, NONE),
        "ErrorDataRace" => E::ErrorDataRace(text("variable")?, NONE),
        // Of an error in a closure the map has the text alone.
        "ErrorInFunctionCall" if text("message")?.starts_with("Data race") => E::ErrorDataRace(String::new(), NONE),
        "ErrorModuleNotFound" => E::ErrorModuleNotFound(text("module")?, NONE),
        "ErrorDotExpr" => E::ErrorDotExpr(text("property")?, NONE),
        "ErrorIndexNotFound" => E::ErrorIndexNotFound(map.get("index")?.clone(), NONE),
        "ErrorArrayBounds" => E::ErrorArrayBounds(size("length")?, index(), NONE),
        "ErrorStringBounds" => E::ErrorStringBounds(size("length")?, index(), NONE),
        "ErrorMismatchDataType" => E::ErrorMismatchDataType(text("requested")?, text("actual")?, NONE),
        "ErrorMismatchOutputType" => E::ErrorMismatchOutputType(text("requested")?, text("actual")?, NONE),
        "ErrorArithmetic" => E::ErrorArithmetic(text("message")?, NONE),
        "ErrorFor" => E::ErrorFor(NONE),
        "ErrorDataTooLarge" => E::ErrorDataTooLarge(text("type")?, NONE),
        _ => return None,
    })
}
