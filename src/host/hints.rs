//! What to do about an error of the language itself: syntax, types, values. Errors of primitives bring their own hints.

use rhai::{EvalAltResult, LexError, ParseErrorType};

use super::{bounds, modules, reference, values};
use crate::suggest::{close, nearest};

/// For an error of syntax.
pub fn of_syntax(error: &ParseErrorType) -> Option<String> {
    let hint = match error {
        ParseErrorType::BadInput(LexError::UnterminatedString) => {
            "a string ends with the mark it began with, on the same line".into()
        }
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
        ParseErrorType::Reserved(word) => format!("`{word}` is a word of the language: choose another name"),
        ParseErrorType::AssignmentToConstant(_) => "what changes is declared with `let`".into(),
        ParseErrorType::VariableExpected => "a name belongs here".into(),
        ParseErrorType::WrongFnDefinition => "functions are defined at the top of a file, not inside something".into(),
        ParseErrorType::FnMissingParams(name) => format!("a function has brackets: fn {name}() {{ … }}"),
        ParseErrorType::DuplicatedProperty(key) => format!("`{key}` stands twice in this map"),
        _ => return None,
    };
    Some(hint)
}

/// Message and hint of an error while a script runs.
pub fn of_run(error: &EvalAltResult) -> (String, Option<String>) {
    let told = |message: &str, hint: &str| (message.to_string(), Some(hint.to_string()));
    let too_many = || {
        told(
            "the script has taken more steps than it may: is there a loop without an end?",
            "`outlier run --max-steps N SCRIPT` allows more",
        )
    };
    match error {
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::OUT_OF_TIME => told(
            "the script has run longer than it may",
            "its time was given with `--max-minutes`; finished results are kept",
        ),
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::TOO_DEEP => told(
            "calls and expressions inside each other fill the stack: is there a recursion without an end?",
            "a loop needs no stack",
        ),
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::TOO_NESTED => told(
            "a value is nested too deeply",
            "arrays, maps and closures inside each other may be 512 deep: keep a list of them instead",
        ),
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::TOO_HEAVY => told(
            "the values of the script take more memory than they may",
            "`outlier run --max-memory 4GiB SCRIPT` allows more; models and records are not counted",
        ),
        EvalAltResult::ErrorTooManyOperations(_) => too_many(),
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::TOO_MANY_STEPS => too_many(),
        EvalAltResult::ErrorStackOverflow(_) => told(
            "functions call each other too deeply: is there a recursion without an end?",
            "128 levels are allowed; a loop needs none",
        ),
        EvalAltResult::ErrorDataTooLarge(what, _) => {
            let hint = "a script may hold strings of 64 MiB, arrays of 4,000,000 items and maps of 1,000,000 entries";
            (format!("a value is too large: {}", what.to_lowercase()), Some(hint.to_string()))
        }
        EvalAltResult::ErrorVariableNotFound(name, _) => (format!("no variable `{name}`"), Some(variable(name))),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            (format!("no function `{}`", plain_types(signature)), Some(function(signature)))
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            let near = close(name, values::FIELDS.iter().copied());
            let hint = near.map_or("print(value.keys()) shows what there is".to_string(), |near| {
                format!("did you mean `{near}`?")
            });
            (format!("no field `{name}`"), Some(hint))
        }
        EvalAltResult::ErrorModuleNotFound(path, _) => (format!("no module \"{path}\""), Some(module(path))),
        EvalAltResult::ErrorDotExpr(message, _) => property(message),
        other => {
            let mut bare = other.unwrap_inner().to_string();
            if let Some(cut) = bare.rfind(" (line ") {
                bare.truncate(cut);
            }
            (bare, value(other).map(str::to_string))
        }
    }
}

/// Message and hint where something without fields is read or written as if it had them; the words are Rhai's.
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
            "the value before the point is (), as where something is missing: type_of(value) == \"()\" asks for that"
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

/// For errors whose own words name the fault.
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
        EvalAltResult::ErrorFor(..) => "`for` goes over arrays, ranges such as 0..4, and strings",
        EvalAltResult::ErrorDataRace(..) => "inside `parallel` use copies: let mine = shared;",
        _ => return None,
    })
}

fn variable(name: &str) -> String {
    match nearest(name, reference::all().map(|primitive| primitive.name)) {
        Some(near) if near == name => format!("`{name}` is a function: {name}(…) calls it"),
        _ => "is it misspelt? functions see their parameters, and constants as global::NAME".to_string(),
    }
}

fn function(signature: &str) -> String {
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return "these types do not go together; text and numbers are joined in `… ${value} …`".to_string();
    }
    if let Some((module, function)) = name.split_once("::") {
        let known = modules::functions(module);
        return match nearest(function, known.iter().map(String::as_str)) {
            Some(near) if near != function => format!("did you mean `{module}::{near}`?"),
            Some(_) => format!("`{name}` exists, but not with these arguments"),
            None => format!("`outlier doc {module}` lists the functions of the module"),
        };
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

fn module(path: &str) -> String {
    match nearest(path, modules::embedded()) {
        Some(near) if near == path => format!("import \"{path}\" as {path}; brings it in"),
        Some(near) => format!("did you mean `{near}`?"),
        None => "modules are looked for beside the script, in stdlib/ and in the program".to_string(),
    }
}
