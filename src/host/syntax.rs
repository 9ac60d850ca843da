//! The language as scripts are written in it: Rhai with its sizes bounded, and without any primitive.

use rhai::{AST, Engine, OptimizationLevel, ParseError, Scope, Token};

use super::bounds;

/// Longer texts, in bytes, are not simplified before they run.
const SIMPLIFIED: usize = 128 << 10;

/// An engine that reads scripts as they are written here, without any primitive.
pub fn engine() -> Engine {
    let mut engine = Engine::new();
    bounds::sizes(&mut engine);
    engine.set_fail_on_invalid_map_property(true).set_optimization_level(OptimizationLevel::None);
    // A script is what is written in it.
    engine.disable_symbol("eval");
    // Reserved by Rhai without a use of its own: `sync` is the natural name of a primitive, `default` of a flag's value.
    #[allow(deprecated)] // the hook is marked volatile, not going away
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if matches!(&**word, "sync" | "default") => Token::Identifier(word),
        token => token,
    });
    engine
}

/// A script as a tree of syntax.
pub fn compiled(engine: &Engine, text: &str) -> Result<AST, ParseError> {
    let ast = engine.compile(text)?;
    // The time that simplifying takes grows with the square of the length of a `switch`.
    Ok(match text.len() < SIMPLIFIED {
        true => engine.optimize_ast(&Scope::new(), ast, OptimizationLevel::Simple),
        false => ast,
    })
}
