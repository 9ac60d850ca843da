//! An error as the user sees it: what, where (file, line, caret), what to do, and how the script got there.

use std::fmt;

use rhai::{Dynamic, EvalAltResult, Map, ParseError, Position};

use crate::error::{Error, Kind};

/// Exit codes, documented in README: anything that went wrong has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Script = 1,
    Usage = 2,
    /// A model or a machine.
    Failure = 3,
    Interrupted = 130,
}

impl Exit {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::BadArgument => Exit::Script,
            Kind::Interrupted => Exit::Interrupted,
            _ => Exit::Failure,
        }
    }
}

pub struct Diagnostic {
    pub exit: Exit,
    message: String,
    hint: Option<String>,
    place: Option<Place>,
    /// Outermost last: "in function `run` at stdlib/dettmers.rhai:12:5".
    calls: Vec<String>,
}

struct Place {
    file: String,
    line: usize,
    column: usize,
    text: Option<String>,
}

impl Diagnostic {
    pub fn from_error(error: Error) -> Self {
        Self { exit: Exit::of(error.kind), message: error.message, hint: error.hint, place: None, calls: Vec::new() }
    }

    pub fn usage(message: String, hint: &str) -> Self {
        Self { exit: Exit::Usage, message, hint: Some(hint.to_string()), place: None, calls: Vec::new() }
    }

    pub fn from_parse(error: &ParseError, file: &str, source: &str) -> Self {
        Self {
            exit: Exit::Script,
            message: error.err_type().to_string(),
            hint: None,
            place: place(file, error.position(), Some(source)),
            calls: Vec::new(),
        }
    }

    pub fn from_runtime(error: EvalAltResult, main: &str) -> Self {
        let mut calls = Vec::new();
        let mut file = main.to_string();
        let mut error = error;
        // Positions of wrapped errors belong to the file of the function they wrap.
        loop {
            match error {
                EvalAltResult::ErrorInFunctionCall(function, source, inner, position) => {
                    if !position.is_none() {
                        calls.push(format!("in {function}, called at {}", at(&file, position)));
                    }
                    if !source.is_empty() {
                        file = source;
                    }
                    error = *inner;
                }
                EvalAltResult::ErrorInModule(path, inner, position) => {
                    calls.push(format!("in module \"{path}\", imported at {}", at(&file, position)));
                    if !path.is_empty() {
                        file = super::modules::display_path(&path).unwrap_or(file);
                    }
                    error = *inner;
                }
                _ => break,
            }
        }
        calls.reverse();
        let position = error.position();
        let (exit, message, hint) = describe(&error);
        Self { exit, message, hint, place: place(&file, position, None), calls }
    }
}

fn at(file: &str, position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(line), None) => format!("{file}:{line}"),
        _ => file.to_string(),
    }
}

fn place(file: &str, position: Position, source: Option<&str>) -> Option<Place> {
    let line = position.line()?;
    let read = || super::modules::source(file);
    let text = source.map(str::to_string).or_else(read);
    let text = text.and_then(|text| text.lines().nth(line - 1).map(str::to_string));
    Some(Place { file: file.to_string(), line, column: position.position().unwrap_or(1), text })
}

fn describe(error: &EvalAltResult) -> (Exit, String, Option<String>) {
    match error {
        EvalAltResult::ErrorRuntime(value, _) => thrown(value),
        EvalAltResult::ErrorTerminated(..) => (Exit::Interrupted, "interrupted".to_string(), None),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            let name = signature.split([' ', '(']).next().unwrap_or_default();
            let names = super::values::FUNCTIONS;
            let hint = match names.contains(&name) {
                true => format!("`{name}` exists, but not with these arguments"),
                false => match crate::suggest::nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "see the list of primitives in README.md".to_string(),
                },
            };
            (Exit::Script, format!("no function `{signature}`"), Some(hint))
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            let hint = crate::suggest::nearest(name, super::values::FIELDS.iter().copied());
            let hint = hint.map_or("print(value.keys()) shows what there is".to_string(), |near| {
                format!("did you mean `{near}`?")
            });
            (Exit::Script, format!("no field `{name}`"), Some(hint))
        }
        EvalAltResult::ErrorModuleNotFound(path, _) => {
            let hint = match crate::suggest::nearest(path, super::modules::embedded()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "modules are looked for beside the script, in stdlib/ and in the program".to_string(),
            };
            (Exit::Script, format!("no module \"{path}\""), Some(hint))
        }
        other => {
            let mut bare = other.unwrap_inner().to_string();
            if let Some(cut) = bare.rfind(" (line ") {
                bare.truncate(cut);
            }
            (Exit::Script, bare, None)
        }
    }
}

/// A value that a script or primitive threw.
fn thrown(value: &Dynamic) -> (Exit, String, Option<String>) {
    let Some(map) = value.read_lock::<Map>() else {
        return (Exit::Script, value.to_string(), None);
    };
    let text = |key: &str| map.get(key).filter(|v| v.is_string()).map(|v| v.to_string());
    let exit = match text("kind").as_deref() {
        Some("usage") => Exit::Usage,
        Some(kind) => Kind::from_name(kind).map_or(Exit::Script, Exit::of),
        None => Exit::Script,
    };
    (exit, text("message").unwrap_or_else(|| value.to_string()), text("hint"))
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(Place { file, line, column, text }) = &self.place {
            write!(f, "\n  --> {file}:{line}:{column}")?;
            if let Some(text) = text {
                let number = line.to_string();
                let margin = " ".repeat(number.len());
                // The caret stands under the character, tabs kept.
                let indent: String =
                    text.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { c } else { ' ' }).collect();
                write!(f, "\n {margin} |\n {number} | {text}\n {margin} | {indent}^")?;
            }
        }
        for call in &self.calls {
            write!(f, "\n  {call}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}
