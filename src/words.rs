//! Formats numbers in sentences, sentences in lines, and bytes as digits.

use unicode_width::UnicodeWidthStr;

/// The least number of columns for an explanation beside a name.
const LEAST_ROOM: usize = 24;

/// Formats a number with the thing that it counts, by the regular plural: "1 file", "3 files".
pub fn counted(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {}", plural(one)),
    }
}

/// Formats bytes as two hexadecimal digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the regular plural of the last word: "layer" is "layers", "pass" is "passes", "entry" is
/// "entries", "analysis" is "analyses".
fn plural(one: &str) -> String {
    if let Some(begin) = one.strip_suffix("is") {
        return format!("{begin}es");
    }
    match one.strip_suffix('y') {
        Some(begin) if !begin.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{begin}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| one.ends_with(end)) => format!("{one}es"),
        _ => format!("{one}s"),
    }
}

/// Formats a number with so many decimals. A number that is rounded to zero has no sign: "0.0" and
/// never "-0.0".
pub fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|digit| matches!(digit, b'0' | b'.')) => rest.to_string(),
        _ => text,
    }
}

/// Formats bytes in decimal units, as for disks and networks.
pub fn format_bytes(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    // A value that rounds to 1000 of a unit is shown as 1 of the next.
    while (100.0 * value).round() >= 100_000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", rounded(value, if unit == 0 { 0 } else { 2 }), units[unit])
}

/// Breaks lines between words to at most `width` characters. Lines of a table are not changed. The
/// continuation of an indented line is indented by two more characters.
pub fn in_lines(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_string() };
    text.split('\n').map(|line| broken(line, width)).collect::<Vec<_>>().join("\n")
}

fn broken(line: &str, width: usize) -> String {
    if line.width() <= width || line.starts_with(['│', '┌', '╞', '├', '└']) {
        return line.to_string();
    }
    let margin = line.len() - line.trim_start_matches(' ').len();
    let indent = " ".repeat(if margin > 0 { (margin + 2).min(width / 2) } else { 0 });
    let (mut text, mut used) = (" ".repeat(margin), margin);
    // A number and its per cent sign are one word, and so is a bound such as |x| ≥ 4.
    let together = line.trim_start_matches(' ').replace(" %", "\u{a0}%").replace(" ≥ ", "\u{a0}≥\u{a0}");
    for (i, word) in together.split(' ').enumerate() {
        if i > 0 && used + 1 + word.width() > width {
            text += &format!("\n{indent}");
            used = indent.len();
        } else if i > 0 {
            text.push(' ');
            used += 1;
        }
        text += &word.replace("\u{a0}%", " %").replace("\u{a0}≥\u{a0}", " ≥ ");
        used += word.width();
    }
    text
}

/// Formats an entry of a list: its name, and its explanation from `column` on. If the name reaches
/// into that column, or a terminal of `width` has too little space there, the explanation stands
/// below.
pub fn listed(name: &str, column: usize, said: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return format!("{name:<before$} {said}", before = column.saturating_sub(1)) };
    let below = column + LEAST_ROOM > width || name.width() + 1 > column;
    let column = if below { (column / 2).clamp(2, 8) } else { column };
    let margin = " ".repeat(column);
    let lines = in_lines(said, Some(width.saturating_sub(column)));
    let lines = lines.lines().map(str::trim_start).collect::<Vec<_>>().join(&format!("\n{margin}"));
    let gap = if below { format!("\n{margin}") } else { " ".repeat(column - name.width()) };
    format!("{name}{gap}{lines}").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_everything_else_is_not() {
        let said = [0, 1, 2].map(|count| counted(count, "feature"));
        assert_eq!(said, ["0 features", "1 feature", "2 features"]);
        let said = ["pass", "entry", "array", "index", "analysis"].map(|one| counted(2, one));
        assert_eq!(said, ["2 passes", "2 entries", "2 arrays", "2 indexes", "2 analyses"]);
    }

    #[test]
    fn nothing_has_no_sign() {
        let said = [-0.0, 0.0, -0.04, -0.05, -0.06, 1.25, -12.0].map(|value| rounded(value, 1));
        assert_eq!(said, ["0.0", "0.0", "0.0", "-0.1", "-0.1", "1.2", "-12.0"]);
        assert_eq!([rounded(f64::NAN, 2), rounded(-0.0, 0), rounded(f64::NEG_INFINITY, 1)], ["NaN", "0", "-inf"]);
    }

    #[test]
    fn sentences_are_broken_between_words() {
        assert_eq!(in_lines("one two three", Some(9)), "one two\nthree");
        assert_eq!(in_lines("about 95 % of all", Some(9)), "about\n95 % of\nall");
        assert_eq!(in_lines("none at |x| ≥ 4, of 9", Some(12)), "none at\n|x| ≥ 4, of\n9");
        assert_eq!(in_lines("  one two three", Some(9)), "  one two\n    three");
        assert_eq!(in_lines("one two three", None), "one two three");
        assert_eq!(in_lines("│ one two three │\nshort", Some(9)), "│ one two three │\nshort");
        assert!(in_lines("a https://x.example/long/path b", Some(9)).lines().count() == 3);
    }

    #[test]
    fn an_entry_goes_on_where_it_began() {
        assert_eq!(listed("  --flag", 12, "what it does", None), "  --flag    what it does");
        assert_eq!(listed("  --flag", 12, "what it does and why", Some(36)), "  --flag    what it does and why");
        let text = listed("  --flag", 12, "what it does, and why it does that", Some(36));
        assert_eq!(text, "  --flag    what it does, and why it\n            does that");
        assert_eq!(listed("  --flag", 12, "what it does", Some(30)), "  --flag\n      what it does");
        assert_eq!(listed("  --a-long-flag", 12, "what it does", Some(80)), "  --a-long-flag\n      what it does");
        for width in 20..90 {
            let text = listed("  name", 20, "one two three four five six seven eight nine ten", Some(width));
            assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
        }
    }
}
