//! An error as it is shown to the user: message, location (file, line, caret), hint, and call
//! stack.

use std::borrow::Cow;
use std::fmt;

use rhai::{Dynamic, EvalAltResult, LexError, Map, ParseError, ParseErrorType, Position};

use super::hints;
use crate::error::{Error, Kind};
use crate::exit::Exit;
use crate::host::language::bounds;
use crate::host::language::stdlib;
use crate::host::run::modules;
use crate::terminal::{note_width, visible};

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
    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn from_error(error: Error) -> Self {
        Self { exit: Exit::of(error.kind), message: error.message, hint: error.hint, place: None, calls: Vec::new() }
    }

    pub fn usage(message: String, hint: &str) -> Self {
        Self { exit: Exit::Usage, message, hint: Some(hint.to_string()), place: None, calls: Vec::new() }
    }

    pub fn from_parse(error: &ParseError, file: &str, source: &str) -> Self {
        let (exit, message, hint) = not_parsed(error.err_type(), source, error.position());
        Self { exit, message, hint, place: place(file, error.position(), Some(source)), calls: Vec::new() }
    }

    /// A problem at a position of a file, found without running it.
    pub fn at(file: &str, position: Position, source: &str, message: String, hint: Option<String>) -> Self {
        Self { exit: Exit::Wrong, message, hint, place: place(file, position, Some(source)), calls: Vec::new() }
    }

    pub fn from_runtime(error: EvalAltResult, main: &str) -> Self {
        Self::from_runtime_with(error, main, None)
    }

    /// `source` is the text of `main` if that is not a file.
    pub fn from_runtime_with(error: EvalAltResult, main: &str, source: Option<&str>) -> Self {
        let mut calls = Vec::new();
        let mut files = vec![main.to_string()];
        let mut in_closure = false;
        let mut file = main.to_string();
        let mut error = error;
        // Positions of wrapped errors belong to the file of the wrapped function.
        loop {
            match error {
                EvalAltResult::ErrorInFunctionCall(function, source, inner, position) => {
                    if !position.is_none() {
                        in_closure = function.contains('$');
                        let function = if in_closure { "a closure" } else { function.as_str() };
                        calls.push(format!("in {function}, called at {}", at(&file, position)));
                    }
                    if !source.is_empty() {
                        file = source;
                        files.push(file.clone());
                    }
                    error = *inner;
                }
                EvalAltResult::ErrorInModule(path, inner, position) => {
                    let taken = modules::taken(&file, &path);
                    let from = taken.as_deref().map_or(String::new(), |name| format!(" ({})", stdlib::place(name)));
                    calls.push(format!("in module \"{path}\"{from}, imported at {}", at(&file, position)));
                    file = taken.unwrap_or(file);
                    error = *inner;
                }
                _ => break,
            }
        }
        calls.reverse();
        let position = error.position();
        // A closure's error names the file of its call. Its text may be in another file.
        if in_closure && !is_word(&file, position) {
            file = files.into_iter().rev().find(|other| is_word(other, position)).unwrap_or(file);
        }
        let source = source.filter(|_| file == main);
        let text = source.map(Cow::Borrowed).or_else(|| modules::source(&file).map(Cow::Owned));
        let (exit, message, hint) = describe(&error, text.as_deref().unwrap_or_default());
        Self { exit, message, hint, place: place(&file, position, text.as_deref()), calls }
    }
}

/// True if there is a word at this position of a file.
fn is_word(file: &str, position: Position) -> bool {
    let (Some(line), Some(column)) = (position.line(), position.position()) else { return false };
    let text = modules::source(file).unwrap_or_default();
    let there = text.lines().nth(line - 1).and_then(|line| line.chars().nth(column - 1));
    there.is_some_and(|c| !c.is_whitespace())
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
    let text = source.unwrap_or_default();
    let column = position.position().unwrap_or(1);
    let there = text.lines().nth(line - 1);
    // An error at the end of a file is reported after its last line.
    match there.or(text.lines().last()) {
        Some(last) if there.is_none() => {
            let (line, column) = (text.lines().count(), last.chars().count() + 1);
            Some(Place { file: file.to_string(), line, column, text: Some(last.to_string()) })
        }
        text => Some(Place { file: file.to_string(), line, column, text: text.map(str::to_string) }),
    }
}

/// `source` is the text with the error.
fn describe(error: &EvalAltResult, source: &str) -> (Exit, String, Option<String>) {
    match error {
        EvalAltResult::ErrorRuntime(value, _) => thrown(value),
        EvalAltResult::ErrorParsing(kind, position) => not_parsed(kind, source, *position),
        EvalAltResult::ErrorTerminated(why, _) if why.to_string() == bounds::STOPPED => {
            (Exit::Interrupted, "interrupted".to_string(), None)
        }
        other => {
            let (message, hint) = hints::of_run(other, source);
            (Exit::Wrong, message, hint)
        }
    }
}

/// A mistake in the text of a script or module, or the end of its parsing.
fn not_parsed(kind: &ParseErrorType, source: &str, position: Position) -> (Exit, String, Option<String>) {
    match kind {
        ParseErrorType::BadInput(LexError::Runtime(why)) if why == bounds::STOPPED => {
            (Exit::Interrupted, "interrupted".to_string(), None)
        }
        ParseErrorType::BadInput(LexError::Runtime(why)) if why == bounds::TOO_MANY_NAMES => (
            Exit::Wrong,
            "there are too many names: each is compared with the variables, functions or keys before it".to_string(),
            Some("divide the text into modules of at most 5,000 functions, variables or keys of a map".to_string()),
        ),
        other => (Exit::Wrong, other.to_string(), hints::of_syntax(other, source, position)),
    }
}

/// A value that a script or primitive threw.
fn thrown(value: &Dynamic) -> (Exit, String, Option<String>) {
    let Some(map) = value.read_lock::<Map>() else {
        return (Exit::Wrong, value.to_string(), None);
    };
    let text = |key: &str| map.get(key).filter(|v| v.is_string()).map(|v| v.to_string());
    let exit = match text("kind").as_deref() {
        Some("usage") => Exit::Usage,
        Some(kind) => Kind::from_name(kind).map_or(Exit::Wrong, Exit::of),
        None => Exit::Wrong,
    };
    (exit, text("message").unwrap_or_else(|| value.to_string()), text("hint"))
}

/// The most characters of a source line that are shown.
const LONGEST: usize = 500;
/// Characters around a line number, plus one for a caret after the end of the line.
const FRAME: usize = 5;

/// The part of a source line that fits, around the character at `column`, and the column of that
/// character in it.
fn around(text: &str, column: usize, room: usize) -> (Cow<'_, str>, usize) {
    let count = text.chars().count();
    if count <= room {
        return (Cow::Borrowed(text), column);
    }
    // Two thirds of the part are before the character, because the mistake is usually there.
    let start = column.saturating_sub(1 + 2 * room / 3).min(count.saturating_sub(room));
    let shown = text.chars().skip(start).take(room).map(|c| if c == '\t' { ' ' } else { c });
    let mut shown: Vec<char> = shown.collect();
    if start > 0
        && let Some(first) = shown.first_mut()
    {
        *first = '…';
    }
    if start + room < count
        && let Some(last) = shown.last_mut()
    {
        *last = '…';
    }
    (Cow::Owned(shown.into_iter().collect()), column - start)
}

/// Messages and names are escaped, because they may come from anywhere.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text)?;
        f.write_str(&visible(&text))
    }
}

impl Diagnostic {
    fn write(&self, f: &mut impl fmt::Write) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(Place { file, line, column, text }) = &self.place {
            write!(f, "\n  --> {file}:{line}:{column}")?;
            if let Some(text) = text {
                let number = line.to_string();
                let margin = " ".repeat(number.len());
                let room = note_width().map(|width| width.saturating_sub(margin.len() + FRAME));
                let (text, column) = around(text, *column, room.unwrap_or(LONGEST).min(LONGEST));
                // The caret is under the character, with tabs kept.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_points_at_the_same_character_of_a_line_that_is_cut() {
        let text: String = ('a'..='z').chain('A'..='Z').collect();
        for room in [3, 10, 20, 51] {
            // The first and last character of a part may be an ellipsis.
            for column in 1..=52 {
                let (shown, at) = around(&text, column, room);
                assert_eq!(shown.chars().count(), room);
                let (there, here) = (text.chars().nth(column - 1), shown.chars().nth(at - 1));
                assert!(here == there || here == Some('…') && room == 3, "{room} {column}: {shown} {at}");
            }
            // A position after the end.
            assert_eq!(around(&text, 53, room).1, room + 1);
        }
        for room in [52, 80] {
            assert_eq!(around(&text, 7, room), (Cow::Borrowed(text.as_str()), 7));
        }
    }
}
