//! Makes untrusted text safe to print. Text from machines, hubs, files and scripts may contain
//! control characters that a terminal obeys. All text for a terminal, a log or a message passes one
//! of these functions.

use std::borrow::Cow;

/// Returns whether a character changes how other text is displayed: control characters, which begin
/// terminal escape sequences, and characters that change the direction of writing or break a line
/// invisibly.
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

/// Escapes every control character as `\u{1b}`, except line breaks and tabs.
pub fn visible(text: &str) -> Cow<'_, str> {
    without(text, &['\n', '\t'])
}

/// Escapes line breaks and tabs as well, for text that must be one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    without(text, &['\t'])
}

/// Shortens text for a part of a message: the first `most` characters on one line, in which line
/// breaks are spaces and control characters are escaped. `…` replaces the rest.
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
