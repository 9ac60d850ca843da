//! Text of arrays and maps for people: on one line if it fits, otherwise on several, and shortened
//! if it is long.

use rhai::{Array, Dynamic, Map};

/// Columns of a line, unless a terminal has fewer.
const WIDTH: usize = 100;
/// The largest number of lines of a value.
const MOST_LINES: usize = 60;
/// Indentation of nested values.
const INDENT: usize = 2;

/// The text of a value as `print` shows it, for a terminal of `width` columns or without one.
pub(crate) fn laid_out(value: &Dynamic, width: Option<usize>) -> String {
    if !value.is_array() && !value.is_map() {
        return value.to_string();
    }
    let width = width.map_or(WIDTH, |width| width.min(WIDTH));
    let short = one_line(value, width);
    short.unwrap_or_else(|| {
        let mut lines = Vec::new();
        let whole = add(value, "", "", Place { width, depth: 0 }, &mut lines);
        let mut text = lines.join("\n");
        if !whole {
            text += "\n… and more: print(value.to_json()) shows all of it";
        }
        text
    })
}

/// The value on one line of at most this many columns.
fn one_line(value: &Dynamic, room: usize) -> Option<String> {
    let mut text = String::new();
    write_line(value, room, &mut text).then_some(text).filter(|text| text.chars().count() <= room)
}

/// False as soon as there is no space left, so that a large value is never written completely.
fn write_line(value: &Dynamic, room: usize, text: &mut String) -> bool {
    if let Some(items) = value.read_lock::<Array>() {
        text.push('[');
        for (i, item) in items.iter().enumerate() {
            text.push_str(if i > 0 { ", " } else { "" });
            if !write_line(item, room, text) {
                return false;
            }
        }
        text.push(']');
    } else if let Some(map) = value.read_lock::<Map>() {
        text.push_str("#{");
        for (i, (key, item)) in map.iter().enumerate() {
            text.push_str(&format!("{}{:?}: ", if i > 0 { ", " } else { "" }, key.as_str()));
            if !write_line(item, room, text) {
                return false;
            }
        }
        text.push('}');
    } else {
        text.push_str(&single(value));
    }
    // A length in bytes: a character has one to four of them.
    text.len() <= 4 * room
}

/// A nested value that is neither array nor map.
fn single(value: &Dynamic) -> String {
    format!("{value:?}")
}

/// The width of lines, and the depth inside of other values.
#[derive(Clone, Copy)]
struct Place {
    width: usize,
    depth: usize,
}

impl Place {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn margin(self) -> String {
        " ".repeat(INDENT * self.depth)
    }
}

/// Adds the lines of a value between `before` and `after`. False if lines were left out.
fn add(value: &Dynamic, before: &str, after: &str, place: Place, lines: &mut Vec<String>) -> bool {
    if lines.len() >= MOST_LINES {
        return false;
    }
    let margin = place.margin();
    let room = place.width.saturating_sub(margin.len() + before.chars().count() + after.len());
    if let Some(text) = one_line(value, room) {
        lines.push(format!("{margin}{before}{text}{after}"));
        return true;
    }
    if let Some(items) = value.read_lock::<Array>() {
        lines.push(format!("{margin}{before}["));
        let whole = match items.iter().any(|item| item.is_array() || item.is_map()) {
            true => items.iter().all(|item| add(item, "", ",", place.deeper(), lines)),
            false => filled(&items, place.deeper(), lines),
        };
        lines.push(format!("{margin}]{after}"));
        return whole;
    }
    if let Some(map) = value.read_lock::<Map>() {
        lines.push(format!("{margin}{before}#{{"));
        let entry = |key: &str| format!("{key:?}: ");
        let whole = map.iter().all(|(key, item)| add(item, &entry(key.as_str()), ",", place.deeper(), lines));
        lines.push(format!("{margin}}}{after}"));
        return whole;
    }
    lines.push(format!("{margin}{before}{}{after}", single(value)));
    true
}

/// Adds simple items, as many per line as fit.
fn filled(items: &Array, place: Place, lines: &mut Vec<String>) -> bool {
    let margin = place.margin();
    let mut line = margin.clone();
    for item in items {
        let text = single(item);
        if line.len() > margin.len() && line.chars().count() + text.chars().count() + 2 > place.width {
            lines.push(line.trim_end().to_string());
            line.clone_from(&margin);
            if lines.len() >= MOST_LINES {
                return false;
            }
        }
        line += &format!("{text}, ");
    }
    lines.push(line.trim_end().to_string());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: i64) -> Dynamic {
        (0..count).map(Dynamic::from).collect::<Array>().into()
    }

    fn map(entries: Vec<(&str, Dynamic)>) -> Dynamic {
        entries.into_iter().map(|(key, value)| (key.into(), value)).collect::<Map>().into()
    }

    #[test]
    fn what_fits_is_one_line_as_the_language_writes_it() {
        let value = map(vec![("a", numbers(3)), ("b", map(vec![("c", "x\"y".into())])), ("d", Dynamic::UNIT)]);
        assert_eq!(laid_out(&value, None), value.to_string());
        assert_eq!(laid_out(&numbers(0), None), "[]");
        assert_eq!(laid_out(&"x".into(), None), "x");
    }

    #[test]
    fn what_does_not_fit_is_laid_out() {
        let text = laid_out(&map(vec![("ids", numbers(40)), ("name", "x".into())]), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["#{", "  \"ids\": ["]);
        assert!(lines[2].starts_with("    0, 1, 2, ") && lines[2].ends_with(','), "{text}");
        assert_eq!(lines[lines.len() - 3..], ["  ],", "  \"name\": \"x\",", "}"]);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_shorter_lines() {
        let value = map(vec![("ids", numbers(40)), ("pair", map(vec![("a", numbers(12)), ("b", numbers(12))]))]);
        for width in [30, 60, 80] {
            let text = laid_out(&value, Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
        assert_eq!(laid_out(&value, Some(500)), laid_out(&value, None));
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let rows: Array = (0..1000).map(|_| numbers(60)).collect();
        let text = laid_out(&rows.into(), None);
        assert!(text.lines().count() <= MOST_LINES + 10, "{}", text.lines().count());
        assert!(text.ends_with("\n… and more: print(value.to_json()) shows all of it"), "{text}");
        let text = laid_out(&numbers(100_000), None);
        assert!(text.lines().count() <= MOST_LINES + 3 && text.contains("… and more"), "{}", text.lines().count());
        assert!(!laid_out(&numbers(100), None).contains("… and more"));
    }
}
