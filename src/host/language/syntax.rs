//! The language of scripts: Rhai with limited nesting, without any primitive.

use rhai::{AST, Engine, OptimizationLevel, ParseError, Scope, Token};

use super::{bounds, parsing};

/// Longer texts, in bytes, are not optimised before they run.
const SIMPLIFIED: usize = 128 << 10;

/// An engine that parses scripts, without any primitive.
pub(crate) fn engine() -> Engine {
    let mut engine = Engine::new();
    bounds::nesting(&mut engine);
    engine.set_fail_on_invalid_map_property(true).set_optimization_level(OptimizationLevel::None);
    // All code of a script is in its file.
    engine.disable_symbol("eval");
    // Rhai reserves these words without using them: `sync` is the natural name of a primitive, and
    // `default` of a flag's value.
    #[allow(deprecated)] // the hook is marked volatile, not deprecated
    engine.on_parse_token(|token, _, _| {
        parsing::follow(match token {
            Token::Reserved(word) if matches!(&**word, "sync" | "default") => Token::Identifier(word),
            token => token,
        })
    });
    engine
}

/// Parses a script to a syntax tree.
pub(crate) fn compiled(engine: &Engine, text: &str) -> Result<AST, ParseError> {
    let ast = parsing::parse(engine, text)?;
    // The time of optimisation grows with the square of the length of a `switch`.
    Ok(match text.len() < SIMPLIFIED {
        true => engine.optimize_ast(&Scope::new(), ast, OptimizationLevel::Simple),
        false => ast,
    })
}

#[cfg(test)]
mod tests {
    /// With a limit of sizes, Rhai walks through the whole array at each call of `push` or `len`.
    #[test]
    fn no_call_measures_whole_values() {
        let engine = super::engine();
        let sizes = [engine.max_string_size(), engine.max_array_size(), engine.max_map_size()];
        assert_eq!(sizes, [0; 3]);
    }
}
