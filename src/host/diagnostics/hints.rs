//! Hints for errors of the language itself: syntax, types, values. Errors of primitives have their
//! own hints.

use rhai::{EvalAltResult, LexError, ParseErrorType, Position};

use super::fields::fields;
use super::habits;
use crate::host::language::bounds;
use crate::host::language::stdlib;
use crate::host::reference;
use crate::host::run::modules;
use crate::suggest::{close, nearest};

const ITERABLE: &str =
    "`for` goes over arrays, ranges such as `0..4`, and strings; map.keys() and map.values() are arrays";

/// For a syntax error at a position of a text.
pub(crate) fn of_syntax(error: &ParseErrorType, source: &str, position: Position) -> Option<String> {
    if let Some(hint) = habits::of_syntax(error, source, position) {
        return Some(hint);
    }
    let hint = match error {
        ParseErrorType::BadInput(LexError::UnterminatedString) => {
            "a string ends with the mark it began with, on the same line; one in backquotes may have several lines"
                .into()
        }
        ParseErrorType::BadInput(LexError::UnexpectedInput(symbol))
            if [")", "]", "}", ",", ";"].contains(&&symbol[..]) =>
        {
            format!("a value is missing before `{symbol}`, or what it closes was never opened")
        }
        ParseErrorType::BadInput(LexError::UnexpectedInput(word)) if word.starts_with(|c: char| c.is_alphabetic()) => {
            format!("`{word}` does not stand here: is a bracket or a brace before it too many, or missing?")
        }
        ParseErrorType::BadInput(LexError::ImproperSymbol(symbol, _)) if symbol == "eval" => {
            "a script runs only the code that is written in it: put the code in its place, or in a function".into()
        }
        ParseErrorType::MismatchedType(wanted, _) if wanted.contains("iterable") => ITERABLE.into(),
        ParseErrorType::MismatchedType(..) => "`==`, `<`, `in` and others make conditions of values".into(),
        ParseErrorType::FnMissingBody(_) => "a function is `fn name(a, b) { … }`".into(),
        ParseErrorType::BadInput(_) => "this is no part of the language: is it a character of another one?".into(),
        ParseErrorType::UnexpectedEOF => "something is opened and not closed: a bracket, a brace or a string".into(),
        ParseErrorType::MissingToken(token, _) => match token.as_str() {
            ";" => "a statement ends with `;`; a map begins with `#{`, a function with `fn`".into(),
            ")" | "]" | "}" => format!("something is opened and not closed with `{token}`, or a `,` is missing"),
            "," => "a `,` is missing, or something that was opened is not closed before this".into(),
            ":" => "an entry of a map is `key: value`".into(),
            other => format!("`{other}` belongs here"),
        },
        ParseErrorType::ExprExpected(_) | ParseErrorType::MissingSymbol(_) => "a value is missing here".into(),
        ParseErrorType::Reserved(word) => {
            format!("`{word}` is a word of the language: choose another name; as a key of a map it needs quotes")
        }
        ParseErrorType::AssignmentToConstant(_) => "what changes is declared with `let`".into(),
        ParseErrorType::VariableExpected => "a name belongs here".into(),
        ParseErrorType::WrongFnDefinition => "functions are defined at the top of a file, not inside something".into(),
        ParseErrorType::FnMissingParams(name) => format!("a function has brackets: fn {name}() {{ … }}"),
        ParseErrorType::DuplicatedProperty(key) => format!("`{key}` stands twice in this map"),
        _ => return None,
    };
    Some(hint)
}

/// Message and hint of an error of a running script, at a position of `source`.
pub(crate) fn of_run(error: &EvalAltResult, source: &str) -> (String, Option<String>) {
    if let Some((message, hint)) = bounds::told(error) {
        return (message, Some(hint));
    }
    match error {
        EvalAltResult::ErrorVariableNotFound(name, _) => {
            (format!("no variable `{name}`"), Some(variable(name, source, error.position())))
        }
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            (format!("no function `{}`", plain_types(signature)), Some(function(signature)))
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            let near = close(name, fields()).filter(|near| near != name);
            let hint = near.map_or("print(value.keys()) shows what there is".to_string(), |near| {
                format!("did you mean `{near}`?")
            });
            (format!("no field `{name}`"), Some(hint))
        }
        EvalAltResult::ErrorModuleNotFound(path, _) => (format!("no module \"{path}\""), Some(module(path))),
        EvalAltResult::ErrorDotExpr(message, _) => {
            let (told, hint) = property(message);
            (told, habits::of_field(message).map(str::to_string).or(hint))
        }
        EvalAltResult::ErrorDataRace(what, _) => in_use(what),
        other => {
            let mut bare = other.unwrap_inner().to_string();
            if let Some(cut) = bare.rfind(" (line ") {
                bare.truncate(cut);
            }
            let hint = habits::of_field(&bare).or_else(|| value(other));
            (bare, hint.map(str::to_string))
        }
    }
}

/// Message and hint for a closure that uses a value while a call works on it. `what` is a variable,
/// or what Rhai says of an argument: "argument #1 of function 'map'".
fn in_use(what: &str) -> (String, Option<String>) {
    let message = match what.split_once("of function '").and_then(|(_, rest)| rest.split_once('\'')) {
        Some((function, _)) => format!("`{function}` works on a value that the closure given to it uses as well"),
        None => "this closure uses the value that it is called on".to_string(),
    };
    let hint = "give the closure a copy (`let copy = value;` before it), or only what it needs (`let count = value.len();`); a \
                closure in a map calls that map `this`: map.double = || 2 * this.n";
    (message, Some(hint.to_string()))
}

/// Message and hint for access to fields of a value without fields, by Rhai's message.
fn property(message: &str) -> (String, Option<String>) {
    let quoted: Vec<&str> = message.split('\'').skip(1).step_by(2).collect();
    let (Some(field), Some(kind)) = (quoted.first(), quoted.get(1)) else { return (message.to_string(), None) };
    let (what, hint) = match plain_types(kind).as_str() {
        "array" => (
            "an array".to_string(),
            format!(
                "it holds items: array[0].{field} is that of the first, array.map(|item| item.{field}) those of all"
            ),
        ),
        "()" => (
            "()".to_string(),
            "the value before the point is (), as where something is missing: type_of(value) == \"()\" asks for that; an empty map \
             is #{}, and {} is an empty block"
                .to_string(),
        ),
        kind @ ("string" | "int" | "float" | "bool" | "char") => (
            format!("a value of type {kind}"),
            "only maps and handles have fields; type_of(value) says what a value is".to_string(),
        ),
        _ => {
            let hint =
                "handles such as models and activations are read, not written: options are given when they are made";
            return (message.to_string(), Some(hint.to_string()));
        }
    };
    (format!("{what} has no field `{field}`"), Some(hint))
}

/// Types by the names that scripts know.
fn plain_types(signature: &str) -> String {
    let known = [("&str | ImmutableString | String", "string"), ("i64", "int"), ("f64", "float")];
    known.iter().fold(signature.to_string(), |text, (rust, plain)| text.replace(rust, plain))
}

/// For errors whose message is clear.
fn value(error: &EvalAltResult) -> Option<&'static str> {
    Some(match error {
        EvalAltResult::ErrorArrayBounds(..) | EvalAltResult::ErrorStringBounds(..) => {
            "the first item is [0], the last one [-1]; len() says how many there are"
        }
        EvalAltResult::ErrorArithmetic(..) => "numbers with a point divide without an error: 5 / 0.0 is infinite",
        EvalAltResult::ErrorAssignmentToConstant(..) => "what changes is declared with `let`",
        EvalAltResult::ErrorMismatchDataType(..) => "type_of(value) says what a value is",
        EvalAltResult::ErrorMismatchOutputType(..) => "type_of(value) says what a value is",
        EvalAltResult::ErrorIndexNotFound(..) => "print(value.keys()) shows what there is",
        EvalAltResult::ErrorFor(..) => ITERABLE,
        _ => return None,
    })
}

fn variable(name: &str, source: &str, position: Position) -> String {
    if let Some(hint) = habits::of_variable(name, source, position) {
        return hint;
    }
    if name.contains("::") {
        return format!("is it a function? {name}(…) calls one; `outlier doc MODULE` lists those of a module");
    }
    match nearest(name, reference::all().map(|primitive| primitive.name)) {
        Some(near) if near == name => format!("`{name}` is a function: {name}(…) calls it"),
        _ => "is it misspelt? functions see their parameters, and constants as global::NAME".to_string(),
    }
}

fn function(signature: &str) -> String {
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let hint = habits::of_function(&plain_types(signature));
        return hint
            .unwrap_or("these types do not go together; text and numbers are joined in `… ${value} …`")
            .to_string();
    }
    if let Some((module, function)) = name.split_once("::") {
        return module_function(module, function);
    }
    if let Some(hint) = habits::of_function(&plain_types(signature)) {
        return hint.to_string();
    }
    match reference::find(name) {
        Some(primitive) => format!("it is called as {}", primitive.signatures.join(" or ")),
        None => match nearest(name, reference::names()) {
            Some(near) if near == name => format!("`{name}` exists, but not with these arguments"),
            Some(near) => format!("did you mean `{near}`?"),
            None => "`outlier doc` lists what there is".to_string(),
        },
    }
}

/// For a function that a module does not have, called as `module::function`.
fn module_function(module: &str, function: &str) -> String {
    let own = modules::functions(module);
    let taken = modules::file_of(module);
    // A file of the project replaces the module of that name.
    if let Some(file) = taken.as_deref().filter(|file| !stdlib::is_embedded(file)) {
        let there = modules::functions_of(file);
        return match nearest(function, there.iter().map(String::as_str)) {
            Some(near) if near != function => format!("did you mean `{module}::{near}`? the module is {file}"),
            Some(_) => format!("`{module}::{function}` exists in {file}, but not with these arguments"),
            None if own.iter().any(|name| name == function) => {
                format!(
                    "the import took {file}; rename it, and the module \"{module}\" of the program has `{function}`"
                )
            }
            None => format!("the import took {file}, which has no such function"),
        };
    }
    match nearest(function, own.iter().map(String::as_str)) {
        Some(near) if near != function => format!("did you mean `{module}::{near}`?"),
        Some(_) => format!("`{module}::{function}` exists, but not with these arguments"),
        None => format!("`outlier doc {module}` lists the functions of the module"),
    }
}

fn module(path: &str) -> String {
    match nearest(path, stdlib::modules()) {
        Some(near) if near == path => format!("import \"{path}\" as {path}; brings it in"),
        Some(near) => format!("did you mean `{near}`?"),
        None => "modules are looked for beside the script, in stdlib/ and in the program".to_string(),
    }
}
