//! Text from outside as it may be shown: machines, hubs, files and scripts decide what is in it, and a terminal takes some
//! characters as orders. Whatever goes to a terminal or a log passes one of these two functions.

use std::borrow::Cow;

/// Characters that change how other text is shown: controls, which begin the sequences that terminals obey, and those that
/// turn the direction of writing or end a line unseen.
fn is_order(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control()
}

fn escaped(text: &str, keep: &[char]) -> String {
    let show = |c: char| if is_order(c) && !keep.contains(&c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

fn without<'a>(text: &'a str, keep: &'static [char]) -> Cow<'a, str> {
    match text.contains(|c| is_order(c) && !keep.contains(&c)) {
        true => Cow::Owned(escaped(text, keep)),
        false => Cow::Borrowed(text),
    }
}

/// The text with line breaks and tabs as they are, and every other character that a terminal obeys written out: `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    without(text, &['\n', '\t'])
}

/// The same in one line, for text that must not look like several: `\n`.
pub fn one_line(text: &str) -> Cow<'_, str> {
    without(text, &['\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_out() {
        assert_eq!(visible("a\u{1b}[2J\u{7}\r\n\tb\u{9b}31m"), "a\\u{1b}[2J\\u{7}\\r\n\tb\\u{9b}31m");
        assert_eq!(visible("\u{202e}dne"), "\\u{202e}dne");
        assert_eq!(one_line("a\nerror: b"), "a\\nerror: b");
        for plain in ["", "Größe 7 · ünïcode 漢字 🙂", "a\n\tb"] {
            assert!(matches!(visible(plain), Cow::Borrowed(_)), "{plain}");
        }
    }
}
