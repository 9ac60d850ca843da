//! Explains syntax errors in JSON to the person who edits the file: the place and the correction.
//! The message quotes only single characters and words of programming languages, because the text
//! may be any file.

use serde_json::error::Category;

/// Words for JSON values in other languages.
const WORDS: [(&str, &str); 7] = [
    ("True", "true"),
    ("False", "false"),
    ("None", "null"),
    ("NaN", "null, or leave it out"),
    ("Infinity", "a number"),
    ("undefined", "null"),
    ("nil", "null"),
];

/// What is said of one of the two codes that UTF-16 has for a character where the other is missing.
pub const HALF: &str = "`\\u` with half of a character (a lone surrogate)";

/// Whether a text holds such a half: it is JSON by its form, and no text.
pub fn is_half_a_character(error: &serde_json::Error) -> bool {
    let said = error.to_string();
    said.starts_with("lone leading surrogate") || said.starts_with("unexpected end of hex escape")
}

/// "line 7, column 3: a comma before `}`"; nothing where the text is JSON, and something else is
/// wrong.
pub fn wrong(text: &[u8], error: &serde_json::Error) -> Option<String> {
    if !matches!(error.classify(), Category::Syntax | Category::Eof) {
        return None;
    }
    let (line, column) = (error.line(), error.column());
    Some(format!("line {line}, column {column}: {}", problem(text, error)))
}

fn problem(text: &[u8], error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let at = offset(text, error.line(), error.column());
    let here = text.get(at).copied().unwrap_or_default();
    let rest = &text[at.min(text.len())..];
    if error.is_eof() {
        return match text.trim_ascii().is_empty() {
            true => "there is nothing in it".to_string(),
            false => match said {
                said if said.contains("string") => {
                    "the text ends inside a string: a closing `\"` is missing".to_string()
                }
                said if said.contains("list") => "the text ends inside a list: a `]` is missing".to_string(),
                said if said.contains("object") => "the text ends inside an object: a `}` is missing".to_string(),
                _ => "the text ends where something must follow".to_string(),
            },
        };
    }
    if is_half_a_character(error) {
        return HALF.to_string();
    }
    if here == b'/' || here == b'#' {
        return "a comment, and JSON has none".to_string();
    }
    if here == b'\'' {
        return "a single quote, where JSON has double ones".to_string();
    }
    match said {
        "trailing comma" => format!("a comma before `{}`", sign(here)),
        said if said.starts_with("expected `,` or ") => {
            format!(
                "`{}` where a comma or {} must stand: is a comma missing before it?",
                sign(here),
                &said["expected `,` or ".len()..]
            )
        }
        "expected `:`" => "a colon is missing between a key and its value".to_string(),
        "key must be a string" if here == b',' => "a comma too many".to_string(),
        "key must be a string" => "a key must stand in double quotes".to_string(),
        "trailing characters" => "there is more text behind the end of the JSON value".to_string(),
        said if said.starts_with("expected value")
            || said.starts_with("expected ident")
            || said.starts_with("invalid number") =>
        {
            let begin =
                (0..=at.min(text.len())).rev().find(|i| *i == 0 || !text[*i - 1].is_ascii_alphabetic()).unwrap_or(at);
            let word = WORDS.iter().find(|(word, _)| text[begin..].starts_with(word.as_bytes()));
            match (word, here) {
                (Some((word, json)), _) => format!("`{word}`, for which JSON has {json}"),
                (None, b',') => "a comma too many, or a value is missing".to_string(),
                (None, b'}' | b']') => format!("a value is missing before `{}`", sign(here)),
                _ if rest.first().is_some_and(u8::is_ascii_alphabetic) => {
                    "a text must stand in double quotes".to_string()
                }
                _ => "there is no value of JSON".to_string(),
            }
        }
        said if said.starts_with("control character") => {
            "a line break or another control character inside a string".to_string()
        }
        said => said.to_string(),
    }
}

/// Returns the byte offset of a line and a column. Both are counted from 1, and a column is one
/// byte.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let begin =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum::<usize>();
    begin + column.saturating_sub(1)
}

/// Makes a character safe to print.
fn sign(byte: u8) -> char {
    if byte.is_ascii_graphic() { byte.into() } else { '…' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_called_by_its_name() {
        for (text, expected) in [
            ("{\n \"a\": 1,\n}", "line 3, column 1: a comma before `}`"),
            ("[1, 2,]", "line 1, column 7: a comma before `]`"),
            ("{\"a\": 1 \"b\": 2}", "is a comma missing before it?"),
            ("{\"a\": 1\n \"b\": 2}", "line 2, column 2: `\"` where a comma or `}` must stand"),
            ("{\"a\" 1}", "a colon is missing"),
            ("{'a': 1}", "a single quote"),
            ("{\"a\": 'x'}", "a single quote"),
            ("{a: 1}", "a key must stand in double quotes"),
            ("{\"a\": True}", "`True`, for which JSON has true"),
            ("{\"a\": None}", "`None`, for which JSON has null"),
            ("{\"a\": nan}", "double quotes"),
            ("{\"a\": NaN}", "`NaN`"),
            ("{\"a\": relu}", "a text must stand in double quotes"),
            ("{\"a\": }", "a value is missing before `}`"),
            ("{\"a\": 1 // size\n}", "a comment"),
            ("{\"a\": 1} x", "more text behind the end"),
            ("{\"a\": [1, 2}", "`}` where a comma or `]` must stand"),
            (r#"{"a": "\ud83d"}"#, "half of a character"),
            (r#"{"a": "\ud83d\u0041"}"#, "half of a character"),
            (r#"{"a": "\ude00"}"#, "half of a character"),
            ("{\"a\": \"x", "inside a string"),
            ("{\"a\": 1", "inside an object: a `}` is missing"),
            ("  \n", "there is nothing in it"),
            ("", "there is nothing in it"),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            let said = wrong(text.as_bytes(), &error).unwrap();
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }
}
