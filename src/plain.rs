//! Text from outside made fit for a message: one line, no endless length, nothing that a terminal obeys.

/// The first `most` characters of `text`, with a replacement character in place of each that moves a cursor, starts a line or
/// turns the direction of writing; `…` stands for what is left out.
pub fn plain(text: &str, most: usize) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let shown = |c: char| if breaks(c) || turns(c) { '\u{fffd}' } else { c };
    let rest = text.chars().nth(most).map(|_| '…');
    text.chars().take(most).map(shown).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(super::plain("a\u{1b}[2Jb\r\nc\u{202e}d", 99), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d");
        assert_eq!((super::plain("äbc", 3).as_str(), super::plain("äbcd", 3).as_str()), ("äbc", "äbc…"));
    }
}
