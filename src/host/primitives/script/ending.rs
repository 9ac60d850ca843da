//! The language's `exit`, which ends a run with the script's exit code.

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Position};

use crate::host::language::problem::ScriptResult;
use crate::host::run::context::Context;

/// The language's own function, whose value is used here.
pub(crate) const NAME: &str = "exit";
/// Larger codes are used by shells for missing commands and signals.
const LARGEST: i64 = 125;

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    // Ends the script with the exit code of `exit(3)`, 0 to 125. Any other value is not an exit
    // code.
    let c = context.clone();
    engine.register_fn(NAME, move |value: Dynamic| -> ScriptResult<()> {
        let code = value.as_int().map_or(0, |code| code.clamp(0, LARGEST));
        c.ends_with(code as u8);
        Err(Box::new(EvalAltResult::Exit(value, Position::NONE)))
    });
}
