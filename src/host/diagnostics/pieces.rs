//! Splits a script of any language into words, numbers, texts and symbols, for hints about the
//! context of an error.

use rhai::Position;

/// A token of a script: a word, a number, a text or a symbol. Comments are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Its position, from 1 on; columns are characters.
    pub line: usize,
    pub column: usize,
    /// True if nothing is between this and the previous token.
    pub joined: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Word,
    Number,
    /// In any kind of quotation marks.
    Text,
    Symbol,
}

/// Symbols of two or three characters that are one token.
const LONG: &[&str] =
    &["===", "!==", "==", "!=", "<=", ">=", "=>", "->", "<-", ":=", "::", "**", "&&", "||", "..", "#{"];

/// The tokens of a script in any language.
fn pieces(source: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut at, mut line, mut column, mut end) = (0, 1, 1, 0);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (length, kind) = piece(first, rest);
        let text = &rest[..length];
        if let Some(kind) = kind {
            pieces.push(Piece { kind, text, line, column, joined: end == at });
            end = at + length;
        }
        match text.rfind('\n') {
            Some(last) => {
                line += text.matches('\n').count();
                column = text[last + 1..].chars().count() + 1;
            }
            None => column += text.chars().count(),
        }
        at += length;
    }
    pieces
}

/// Length and kind of the token at the beginning of `rest`; no kind for space and comments.
fn piece(first: char, rest: &str) -> (usize, Option<Kind>) {
    let until = |stop: &dyn Fn(char) -> bool| rest.find(stop).unwrap_or(rest.len());
    match first {
        _ if rest.starts_with("//") => (until(&|c| c == '\n'), None),
        _ if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |end| end + 2), None),
        _ if first.is_whitespace() => (until(&|c| !c.is_whitespace()), None),
        _ if first.is_alphabetic() || first == '_' => (until(&|c| !c.is_alphanumeric() && c != '_'), Some(Kind::Word)),
        _ if first.is_ascii_digit() => (until(&|c| !c.is_ascii_alphanumeric() && c != '_'), Some(Kind::Number)),
        '"' | '\'' | '`' => (quoted(first, rest), Some(Kind::Text)),
        _ => {
            let long = LONG.iter().find(|symbol| rest.starts_with(**symbol));
            (long.map_or(first.len_utf8(), |symbol| symbol.len()), Some(Kind::Symbol))
        }
    }
}

/// The length of a text with its quotation marks. Only backquotes allow line breaks.
fn quoted(mark: char, rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' if mark != '`' => return at,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == mark => return at + 1,
            _ => (),
        }
    }
    rest.len()
}

/// The tokens of a script, and the one at which the parser stopped.
pub(crate) struct Place<'a> {
    pub pieces: Vec<Piece<'a>>,
    pub at: usize,
}

impl<'a> Place<'a> {
    /// None if no token is at or after `position`.
    pub(crate) fn of(source: &'a str, position: Position) -> Option<Self> {
        let (line, column) = (position.line()?, position.position().unwrap_or(1));
        let pieces = pieces(source);
        let behind = |piece: &Piece| (piece.line, piece.column + piece.text.chars().count()) > (line, column);
        let at = pieces.iter().position(behind)?;
        Some(Self { pieces, at })
    }

    /// The token `offset` positions after this one on the same line; before it if negative.
    pub(crate) fn near(&self, offset: isize) -> Option<Piece<'a>> {
        let piece = *self.pieces.get(self.at.checked_add_signed(offset)?)?;
        (piece.line == self.pieces[self.at].line).then_some(piece)
    }

    pub(crate) fn text(&self, offset: isize) -> &'a str {
        self.near(offset).map_or("", |piece| piece.text)
    }

    /// The tokens on the same line.
    pub(crate) fn line(&self) -> &[Piece<'a>] {
        let line = self.pieces[self.at].line;
        let begin = self.pieces.partition_point(|piece| piece.line < line);
        let end = self.pieces.partition_point(|piece| piece.line <= line);
        &self.pieces[begin..end]
    }

    pub(crate) fn line_has(&self, text: &str) -> bool {
        self.line().iter().any(|piece| piece.kind != Kind::Text && piece.text == text)
    }
}

/// The innermost open bracket, and the token before it.
fn open_bracket<'a>(place: &'a Place) -> Option<(&'a Piece<'a>, Option<&'a Piece<'a>>)> {
    let mut closed = 0;
    for (at, piece) in place.pieces[..place.at].iter().enumerate().rev() {
        match piece.text {
            ")" | "]" | "}" => closed += 1,
            "(" | "[" | "{" | "#{" if closed > 0 => closed -= 1,
            "(" | "[" | "{" | "#{" => return Some((piece, at.checked_sub(1).map(|before| &place.pieces[before]))),
            _ => (),
        }
    }
    None
}

/// True if the innermost open bracket is this one.
pub(crate) fn in_brackets(place: &Place, bracket: &str) -> bool {
    open_bracket(place).is_some_and(|(open, _)| open.text == bracket)
}

/// True if it is a brace in place of a value, as around maps of other languages.
pub(crate) fn is_map(place: &Place) -> bool {
    open_bracket(place).is_some_and(|(open, before)| {
        let value = before.is_some_and(|before| matches!(before.text, "(" | "[" | "," | "=" | ":" | "return" | "=>"));
        open.text == "{" && value
    })
}

/// True if it belongs to a call.
pub(crate) fn is_call(place: &Place) -> bool {
    open_bracket(place).is_some_and(|(_, before)| before.is_some_and(|before| before.kind == Kind::Word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_know_their_places() {
        let found = pieces("let a = 'x y'; // f\n  f\"é\" ==  `\n${b}` c");
        let shown: Vec<_> = found.iter().map(|piece| (piece.text, piece.line, piece.column, piece.joined)).collect();
        assert_eq!(
            shown,
            [
                ("let", 1, 1, true),
                ("a", 1, 5, false),
                ("=", 1, 7, false),
                ("'x y'", 1, 9, false),
                (";", 1, 14, true),
                ("f", 2, 3, false),
                ("\"é\"", 2, 4, true),
                ("==", 2, 8, false),
                ("`\n${b}`", 2, 12, false),
                ("c", 3, 7, false),
            ]
        );
    }

    #[test]
    fn text_that_is_never_closed_is_read_to_its_end() {
        for source in ["\"abc", "'", "`a\nb", "/* x", "#", "\"\\", "a // b"] {
            assert!(pieces(source).len() <= 1, "{source}");
        }
        assert!(Place::of("let a = 1", Position::new(9, 1)).is_none());
    }
}
