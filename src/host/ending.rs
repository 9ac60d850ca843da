//! `exit` of the language, which ends a run with the exit code that a script gives.

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Position};

use super::context::Context;
use super::problem::ScriptResult;

/// The language's own function, with a meaning for its value.
pub const NAME: &str = "exit";
/// Codes above it are those of shells: commands that are not there, signals.
const LARGEST: i64 = 125;

pub fn register(engine: &mut Engine, context: &Arc<Context>) {
    // Ends the script: `exit(3)` with this exit code, 0 to 125; any other value, and none, is no code.
    let c = context.clone();
    engine.register_fn(NAME, move |value: Dynamic| -> ScriptResult<()> {
        let code = value.as_int().map_or(0, |code| code.clamp(0, LARGEST));
        c.ends_with(code as u8);
        Err(Box::new(EvalAltResult::Exit(value, Position::NONE)))
    });
}
