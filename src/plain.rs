//! Text from outside as it may be shown: machines, hubs, files and scripts decide what is in it, and a terminal takes some
//! characters as orders. Whatever goes to a terminal, a log or a message passes one of these functions.

use std::borrow::Cow;

/// Characters that change how other text is shown: controls, which begin the sequences that terminals obey, and those that
/// turn the direction of writing or end a line unseen.
fn is_order(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control()
}

fn without<'a>(text: &'a str, keep: &[char]) -> Cow<'a, str> {
    let is_wrong = |c: char| is_order(c) && !keep.contains(&c);
    let show = |c: char| if is_wrong(c) { c.escape_default().to_string() } else { c.to_string() };
    match text.contains(is_wrong) {
        true => Cow::Owned(text.chars().map(show).collect()),
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

/// For a part of a message: one line of the first `most` characters, in which breaks are spaces and what a terminal obeys is
/// written out; `…` stands for what is left out.
pub fn plain(text: &str, most: usize) -> String {
    let space = |c: char| if matches!(c, '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}') { ' ' } else { c };
    let rest = text.chars().nth(most).map(|_| '…');
    let short: String = text.chars().take(most).map(space).chain(rest).collect();
    without(&short, &[]).into_owned()
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

    #[test]
    fn a_part_of_a_message_is_one_short_line() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc\u{202e}d", 99), "a\\u{1b}[2Jb  c\\u{202e}d");
        assert_eq!((plain("äbc", 3).as_str(), plain("äbcd", 3).as_str()), ("äbc", "äbc…"));
    }
}
