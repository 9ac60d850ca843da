//! The functions of an engine, by name and number of arguments.

use rhai::Engine;
use serde_json::Value;

/// Functions that the parser knows and no module lists.
const KEYWORDS: &[(&str, usize)] = &[
    ("print", 0),
    ("print", 1),
    ("debug", 0),
    ("debug", 1),
    ("type_of", 1),
    ("eval", 1),
    ("Fn", 1),
    ("is_def_var", 1),
    ("is_def_fn", 2),
    ("is_shared", 1),
];

/// The functions of all modules, including the language's own; sorted.
pub(crate) fn of(engine: &Engine) -> Vec<(String, usize)> {
    let mut names = listed(engine, true);
    names.extend(KEYWORDS.iter().map(|(name, arity)| (name.to_string(), *arity)));
    names.sort();
    names.dedup();
    names
}

/// The functions that are registered with this engine itself.
pub(crate) fn registered(engine: &Engine) -> Vec<(String, usize)> {
    listed(engine, false)
}

fn listed(engine: &Engine, standard: bool) -> Vec<(String, usize)> {
    let json = engine.gen_fn_metadata_to_json(standard).unwrap_or_default();
    let json: Value = serde_json::from_str(&json).unwrap_or_default();
    let all = json["functions"].as_array().into_iter().flatten();
    let one =
        |function: &Value| Some((function["name"].as_str()?.to_string(), function["numParams"].as_u64()? as usize));
    let mut names: Vec<_> = all.filter_map(one).collect();
    names.sort();
    names.dedup();
    names
}
