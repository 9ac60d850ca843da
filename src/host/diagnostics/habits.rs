//! Hints for users of Python and other languages: for syntax errors, by the words around the
//! position where the parser stopped, and for undefined names.

use rhai::{LexError, ParseErrorType, Position};

use super::pieces::{Kind, Piece, Place, in_brackets, is_call, is_map};
use crate::host::language::stdlib;
use crate::suggest::nearest;

/// Words of other languages that precede a word, a text or a number, as no words do here.
const BEFORE: &[(&str, &str)] = &[
    ("def", "a function is `fn name(a, b) { … }`"),
    ("function", "a function is `fn name(a, b) { … }`"),
    ("func", "a function is `fn name(a, b) { … }`"),
    ("lambda", "a function without a name is `|x| x + 1`"),
    ("elif", "a further condition is `else if`"),
    ("elsif", "a further condition is `else if`"),
    ("elseif", "a further condition is `else if`"),
    ("except", "an error is caught by `try { … } catch (error) { … }`"),
    ("raise", "an error is thrown by `throw \"what is wrong\"`"),
    ("from", "a module is brought in as a whole: import \"thresholds\" as thresholds;"),
    ("assert", "what must be true is checked by assert(condition)"),
    ("del", "nothing is deleted: `map.remove(\"key\")` and `list.remove(0)` take something out"),
    ("class", "there are no classes: a map holds values, `#{ name: value }`, and functions stand beside it"),
    ("struct", "there are no types of your own: a map holds values, `#{ name: value }`"),
    ("global", "functions see their parameters, and constants as global::NAME"),
    ("nonlocal", "functions see their parameters, and constants as global::NAME"),
    ("var", "a variable is declared with `let`"),
    ("val", "a variable is declared with `let`, a constant with `const`"),
    ("mut", "every variable can change: `let x = 1;`"),
    ("print", "what is printed stands in brackets: print(value)"),
    ("foreach", "a loop is `for item in list { … }`"),
    ("include", "a module is brought in by import \"name\" as name;"),
    ("not", "`!` is not, `&&` is and, `||` is or: `!(x in list)`"),
    ("and", "`&&` is and, `||` is or, `!` is not"),
    ("or", "`||` is or, `&&` is and, `!` is not"),
    ("is", "`==` compares; a value that is not there is `()`"),
];

/// Words that the language reserves and does not use.
const RESERVED: &[(&str, &str)] = &[
    ("null", NOTHING),
    ("nil", NOTHING),
    ("void", NOTHING),
    ("with", "nothing has to be opened or closed: leave `with` out"),
    ("var", "a variable is declared with `let`"),
    ("static", "a constant is declared with `const`"),
    ("case", SWITCH),
    ("match", SWITCH),
    ("async", PARALLEL),
    ("await", PARALLEL),
    ("spawn", PARALLEL),
    ("thread", PARALLEL),
    ("go", PARALLEL),
    ("yield", "a function gives its whole result back: collect it in a list"),
    ("use", "a module is brought in by import \"name\" as name;"),
    ("#", "a comment begins with `//`; a map is `#{ key: value }`"),
    ("@", "there are no decorators: call the function on what it is for"),
    ("$", "a value in a text is `… ${value} …`, in backquotes"),
    ("->", "types are not written: `fn name(a, b) { … }`"),
    ("=>", "a function without a name is `|x| x + 1`"),
    ("<-", "`=` assigns"),
    (":=", "`=` assigns; a new variable is `let x = 1;`"),
    ("===", "`==` compares"),
    ("!==", "`!=` compares"),
    ("++", "`x += 1` counts up"),
    ("--", "`x -= 1` counts down"),
    ("?", CHOICE),
    ("~", "`!` is not"),
];

const NOTHING: &str = "a value that is not there is `()`";
const SWITCH: &str = "a choice among values is `switch x { 1 => …, _ => … }`";
const MAP: &str = "a map begins with `#{`: `#{ key: value }`";
const DOCSTRING: &str = "a comment is `// …` or `/* … */`; a text over several lines stands in backquotes";
const PARALLEL: &str = "parallel(list, |item| …) works on several things at once";
const CHOICE: &str = "a choice between two values is `if condition { a } else { b }`";
const BLOCK: &str =
    "a block stands in braces: `if condition { … } else { … }`, `for item in list { … }`, `fn name(a) { … }`";
const PART: &str = "a part of a list is `list.extract(0..2)`, of a text `text.sub_string(0, 2)`; [-1] is the last item";
const DOUBLE: &str = "a text stands in double quotation marks, \"…\"; single ones hold one character";
const VALUES_IN_TEXT: &str = "a text with values stands in backquotes: `… ${value} …`";

/// For a syntax error: the word that this language uses. None for mistakes of any language.
pub(crate) fn of_syntax(error: &ParseErrorType, source: &str, position: Position) -> Option<String> {
    of_symbol(error).map(str::to_string).or_else(|| {
        let place = Place::of(source, position)?;
        of_words(&place).map(str::to_string).or_else(|| of_end(error, source, &place))
    })
}

/// By the error itself.
fn of_symbol(error: &ParseErrorType) -> Option<&'static str> {
    let reserved = |word: &str| RESERVED.iter().find(|(known, _)| *known == word).map(|(_, hint)| *hint);
    match error {
        ParseErrorType::BadInput(LexError::MalformedChar(_)) => Some(DOUBLE),
        ParseErrorType::BadInput(LexError::MalformedEscapeSequence(_)) => {
            Some("`\\` stands for itself as `\\\\`; in a path `/` does, on every system")
        }
        ParseErrorType::BadInput(LexError::UnexpectedInput(what)) if what.contains(['“', '”', '„', '‘', '’']) => {
            Some("these are quotation marks of a word processor: a text stands in \"…\"")
        }
        ParseErrorType::BadInput(LexError::ImproperSymbol(symbol, said)) => match symbol.as_str() {
            "=" if said.contains("==") => Some("`==` compares, `=` assigns"),
            other => reserved(other),
        },
        ParseErrorType::Reserved(word) => reserved(word),
        ParseErrorType::UnknownOperator(symbol) => reserved(symbol),
        _ => None,
    }
}

/// By the words around the position.
fn of_words(place: &Place) -> Option<&'static str> {
    let (here, before, line) = (place.near(0)?, place.near(-1), place.line());
    let is = |piece: Option<Piece>, kind: Kind| piece.is_some_and(|piece| piece.kind == kind);
    if here.kind == Kind::Text && here.text.starts_with('\'') && here.text.chars().count() != 3 {
        return Some(DOUBLE);
    }
    if here.text == "\"\"" && place.near(1).is_some_and(|next| next.joined && next.text.starts_with('"')) {
        return Some(DOCSTRING);
    }
    if let Some(word) = before.filter(|_| here.kind == Kind::Text && here.joined) {
        match word.text.to_ascii_lowercase().as_str() {
            "f" | "rf" | "fr" => return Some(VALUES_IN_TEXT),
            "r" | "b" | "u" | "rb" | "br" => {
                return Some("a text has no letter before it: \"…\", or `…` over several lines");
            }
            _ => (),
        }
    }
    for offset in [0, -1, -2] {
        let Some(word) = place.near(offset).filter(|word| word.kind == Kind::Word) else { continue };
        let next = place.near(offset + 1);
        let goes_on = is(next, Kind::Word) || is(next, Kind::Text) || is(next, Kind::Number);
        let logic = matches!(word.text, "and" | "or" | "not" | "is");
        let opens = next.is_some_and(|next| matches!(next.text, "(" | "[" | "!" | "-"));
        let known = BEFORE.iter().find(|(known, _)| *known == word.text);
        if let Some((_, hint)) = known.filter(|_| goes_on || logic && opens) {
            return Some(*hint);
        }
        if matches!(word.text, "except" | "finally") {
            return Some("an error is caught by `try { … } catch (error) { … }`");
        }
    }
    if line.windows(2).any(|two| two[0].text == "not" && two[1].text == "in") {
        return Some("`!` is not, `&&` is and, `||` is or: `!(x in list)`");
    }
    if let Some(equals) = line.iter().find(|piece| matches!(piece.text, "===" | "!==")) {
        return RESERVED.iter().find(|(symbol, _)| *symbol == equals.text).map(|(_, hint)| *hint);
    }
    let first = line.first().map_or("", |piece| piece.text);
    let opens_block = ["if", "for", "while", "else", "elif", "try", "fn", "loop", "switch", "except", "finally", "}"];
    let colon = here.text == ":" || place.text(1) == ":" && matches!(here.text, "else" | "elif" | "try" | "finally");
    if colon && (opens_block.contains(&first) || first == "def") {
        return Some(BLOCK);
    }
    if here.text == ":" && in_brackets(place, "[") {
        return Some(PART);
    }
    if here.text == ":" && is_map(place) {
        return Some(MAP);
    }
    if here.text == ":" && is(before, Kind::Word) && matches!(place.text(-2), "let" | "const" | "" | "(" | ",") {
        return Some("types are not written: `let x = 1;`, `fn name(a, b) { … }`");
    }
    if here.text == "=" && in_brackets(place, "(") && is(before, Kind::Word) {
        return Some(match place.line_has("fn") {
            true => "parameters have no defaults: write a second function of the same name with fewer of them",
            false => "options stand in a map: `f(x, #{ name: value })`",
        });
    }
    if here.text == "for" && in_brackets(place, "[") {
        return Some("a list is made of another by `list.map(|x| …)` and `list.filter(|x| …)`");
    }
    if here.text == "if" && place.line_has("else") && before.is_some() {
        return Some(CHOICE);
    }
    if here.text == "." && place.near(1).is_some_and(|next| next.kind == Kind::Number && next.joined) {
        return Some("a number begins with a digit: 0.5");
    }
    if here.text == "," && first == "for" {
        return Some("`for (item, index) in list { … }` gives both, the item first");
    }
    if here.text == "let" && first == "for" {
        return Some("a loop over numbers is `for i in 0..10 { … }`");
    }
    if here.text == "," && line.iter().any(|piece| piece.text == "return") && !in_brackets(place, "(") {
        return Some("several values go back as a list, `[a, b]`, or a map, `#{ a: a, b: b }`");
    }
    if here.text == "," && in_brackets(place, "(") && !is_call(place) {
        return Some("a list is `[1, 2]`: there are no tuples");
    }
    if (here.text == "," && place.text(-2) == "let") || (matches!(here.text, "(" | "[") && place.text(-1) == "let") {
        return Some("a variable is declared by itself: `let a = 1; let b = 2;`");
    }
    if matches!(here.text, "=>" | "->") {
        return RESERVED.iter().find(|(symbol, _)| *symbol == here.text).map(|(_, hint)| *hint);
    }
    None
}

/// For a statement without an end, which the parser notices in the next line.
fn of_end(error: &ParseErrorType, source: &str, place: &Place) -> Option<String> {
    let ParseErrorType::MissingToken(token, _) = error else { return None };
    if token == "{" {
        return Some(BLOCK.to_string());
    }
    let here = place.near(0)?;
    if token != ";" || place.near(-1).is_some() {
        return None;
    }
    let last = place.pieces[..place.at].last()?;
    let text = source.lines().nth(last.line - 1)?;
    let end: String = text.chars().skip(last.column - 1 + last.text.chars().count()).collect();
    if end.trim_end().ends_with(';') && end.contains("//") {
        return Some("`//` begins a comment: whole numbers are divided by `/`".to_string());
    }
    if text.trim_start().starts_with("\"\"\"") {
        return Some(DOCSTRING.to_string());
    }
    // Words of other languages that are alone in their line.
    let alone =
        last.kind == Kind::Word && place.pieces[..place.at - 1].last().is_none_or(|piece| piece.line < last.line);
    match last.text {
        "pass" if alone => Some("a block may be empty: `{ }`".to_string()),
        _ if here.line > last.line => Some(format!("a `;` is missing at the end of line {}", last.line)),
        _ => None,
    }
}

/// For an undefined variable at a position of a script.
pub(crate) fn of_variable(name: &str, source: &str, position: Position) -> Option<String> {
    if let Some(hint) = of_name(name) {
        return Some(hint.to_string());
    }
    let place = Place::of(source, position).filter(|place| place.text(0) == name)?;
    let before = place.text(-1);
    if matches!(before, "import" | "from") {
        return Some(format!("the name of a module is a text: import \"{name}\" as {name};"));
    }
    // A module that is imported under this name.
    let is_module = place.pieces.windows(2).any(|two| two[0].text == "as" && two[1].text == name);
    if place.text(1) == "." && (is_module || stdlib::modules().any(|module| module == name)) {
        let function = place.text(2);
        return Some(format!("a function of a module is called as {name}::{function}(…)"));
    }
    let begins = place.near(-1).is_none_or(|before| matches!(before.text, ";" | "{" | "}"));
    if begins && place.text(1) == "=" {
        return Some(format!("a new variable is declared with `let`: let {name} = …;"));
    }
    if begins && place.text(2) == "=" && matches!(place.text(1), "+" | "-" | "*" | "/") {
        return Some(format!("a variable is declared before it is changed: let {name} = …;"));
    }
    let declared = place.pieces.windows(2).filter(|two| matches!(two[0].text, "let" | "const")).map(|two| two[1].text);
    nearest(name, declared.filter(|known| *known != name)).map(|near| format!("did you mean `{near}`?"))
}

/// For a value without such a field or index, by the language's message.
pub(crate) fn of_field(said: &str) -> Option<&'static str> {
    let named = |names: &[&str]| names.iter().any(|name| said.contains(&format!("property '{name}'")));
    if named(&["length", "size", "shape", "count"]) {
        return Some("len() says how many there are: list.len()");
    }
    said.contains("range::Range").then_some(PART)
}

/// For names of other languages.
fn of_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "None" | "nil" | "null" | "undefined" | "NULL" => NOTHING,
        "True" | "TRUE" => "it is written `true`",
        "False" | "FALSE" => "it is written `false`",
        "nan" | "NaN" | "inf" | "Infinity" => "0.0 / 0.0 is no number, 1.0 / 0.0 is infinite",
        "self" => "there are no classes: inside of a method `this` is the value it is called on",
        "pass" => "a block may be empty: `{ }`",
        "elif" => "a further condition is `else if`",
        "continue_" | "next" => "`continue` goes to the next round of a loop, `break` leaves it",
        "math" => "sqrt(x), ln(x), exp(x), PI() and others are called by themselves",
        "np" | "numpy" | "torch" | "pd" | "pandas" | "os" | "sys" | "json" | "random" | "time" | "re" | "console" => {
            "modules of Python are not there: `outlier doc` lists what is, results can be read in Python"
        }
        _ => return None,
    })
}

/// For an undefined function, by the name and types in `signature`.
pub(crate) fn of_function(signature: &str) -> Option<&'static str> {
    let (name, types) = signature.split_once(' ').unwrap_or((signature, ""));
    let types = types.trim_start_matches('(').trim_end_matches(')');
    let of_types: Vec<&str> = types.split(", ").filter(|kind| !kind.is_empty()).collect();
    let first = of_types.first().copied().unwrap_or_default();
    Some(match (name, of_types.len()) {
        ("range", 1) => "numbers from 0 to below 10 are `0..10`",
        ("range", _) => "whole numbers from 2 to below 10 are `2..10`, every third of them `range(2, 10, 3)`",
        ("print", 2..) => "print takes one value: print(`${a} ${b}`)",
        ("enumerate", _) => "`for (item, index) in list { … }` gives both, the item first",
        ("items", 1) => "map.keys() and map.values() are lists; `for key in map.keys() { map[key] }` goes over both",
        ("zip", 2) => "`a.zip(b, |x, y| [x, y])` pairs two lists",
        ("str", 1) => "a value as a text is `${value}` in backquotes, or value.to_string()",
        ("int", 1) if first == "string" => "a text becomes a number by parse_int(text)",
        ("int", 1) => "a number becomes whole by x.to_int()",
        ("float", 1) if first == "string" => "a text becomes a number by parse_float(text)",
        ("float", 1) => "a whole number gets a point by x.to_float()",
        ("bool", 1) => "a condition is written out: `x != 0`, `!list.is_empty()`",
        ("list", _) => "a list is `[1, 2]`, a loop over numbers `for i in 0..4 { … }`",
        ("dict", _) => "a map is `#{ key: value }`",
        ("set" | "tuple", _) => "a list is `[1, 2]`; list.dedup() leaves neighbours that are equal out",
        ("sum", 1) => "a sum is `list.reduce(|sum, x| sum + x, 0.0)`; module \"compare\" has mean and median",
        ("mean" | "median", 1) => "module \"compare\" has it: import \"compare\" as compare; compare::mean(list)",
        ("max" | "min", 1) => "of a list it is `list.reduce(|a, b| max(a, b), list[0])`, or min",
        ("sorted", _) => "list.sort() sorts a list where it is",
        ("reversed", _) => "list.reverse() turns a list round where it is",
        ("append", 2) => "list.push(item) adds an item, list.append(other) a list",
        ("extend", 2) => "list.append(other) adds a list",
        ("any", _) => "`list.some(|x| …)` is whether any item does",
        ("map", 2) if first != "array" => "the list comes first: `list.map(|x| …)`",
        ("filter", 2) if first != "array" => "the list comes first: `list.filter(|x| …)`",
        ("format", _) => VALUES_IN_TEXT,
        ("%", 2) if first == "string" => VALUES_IN_TEXT,
        ("type" | "typeof", 1) | ("isinstance", _) => {
            "type_of(value) is the name of a type, such as \"int\" or \"array\""
        }
        ("open" | "read_file", _) => "a script reads texts by load_tokens and stored results by load_results",
        ("round", 2) => "format_number(x, 2) is a text with two decimals",
        ("log", 1) => "log(text) is a line for people; the logarithm is ln(x)",
        ("strip", 1) => "text.trim() takes the space off both ends, where the text is",
        ("lower" | "toLowerCase", 1) => "it is text.to_lower()",
        ("upper" | "toUpperCase", 1) => "it is text.to_upper()",
        ("startswith" | "startsWith", 2) => "it is text.starts_with(\"…\")",
        ("endswith" | "endsWith", 2) => "it is text.ends_with(\"…\")",
        ("join", 2) => "`list.reduce(|text, x| text + x + \", \", \"\")` puts items into one text",
        ("get", 3) => "`if key in map { map[key] } else { other }`",
        ("update", 2) => "map.mixin(other) takes over the entries of another map",
        ("length" | "size" | "count", 1) => "it is list.len()",
        ("input", _) => "a script asks by flags: let flags = args(#{ name: \"default\" });",
        ("quit", _) => "exit() ends a script",
        ("require" | "include" | "__import__", _) => "a module is brought in by import \"name\" as name;",
        ("sleep" | "time", 0) => "sleep(seconds) waits; timestamp() is the time",
        (_, _) if of_types.contains(&"char") => DOUBLE,
        _ => return None,
    })
}
