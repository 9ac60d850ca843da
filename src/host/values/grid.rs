//! Tables that fit the terminal. Columns that do not fit are left out, the last ones first, and are
//! named below the table. A file or a pipe gets all of them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::words::in_lines;

/// The smallest width of a text before a whole column is left out.
const SHORT: usize = 24;
/// The same for the first column, which identifies the row.
const NAME: usize = 40;
/// A border, a space on either side of every cell, and one line between two cells.
const PER_COLUMN: usize = 3;
const BORDER: usize = 1;

/// A table. Its columns are in the order of importance.
pub struct Grid {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

/// Possible widths of one column in characters.
#[derive(Clone, Copy)]
struct Room {
    /// Without any change.
    whole: usize,
    /// With the words of its header on several lines, so that nothing is lost.
    folded: usize,
    /// With its texts shortened.
    least: usize,
}

impl Grid {
    pub fn new(columns: Vec<String>, rows: Vec<Vec<String>>) -> Self {
        let right = vec![false; columns.len()];
        Self { columns, rows, right }
    }

    /// Aligns these columns on the right, as numbers are.
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        columns.into_iter().for_each(|column| self.right[column] = true);
        self
    }

    /// The table, with at most `width` characters per line if given, and the omitted columns below
    /// it.
    pub fn drawn(&self, width: Option<usize>) -> String {
        let rooms: Vec<Room> = (0..self.columns.len()).map(|column| self.room(column)).collect();
        let whole: Vec<usize> = rooms.iter().map(|room| room.whole).collect();
        let Some(width) = width.filter(|width| total(&whole) > *width) else { return self.with(&whole) };
        let fitting = (1..=rooms.len()).rev().find_map(|count| fit(&rooms[..count], width));
        let widths = fitting.unwrap_or_else(|| vec![width.saturating_sub(PER_COLUMN + BORDER).max(1)]);
        let left_out = &self.columns[widths.len()..];
        let mut text = self.with(&widths);
        if !left_out.is_empty() {
            let note = format!("not shown at this width: {}; a file or a pipe gets all columns", left_out.join(", "));
            text = format!("{text}\n{}", in_lines(&note, Some(width)));
        }
        text
    }

    fn room(&self, column: usize) -> Room {
        let head = &self.columns[column];
        let longest_word = head.split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0);
        let cells = || self.rows.iter().filter_map(|row| row.get(column));
        let widest = cells().map(|cell| wide(cell)).max().unwrap_or(0);
        let folded = widest.max(longest_word);
        let most = if column == 0 { NAME } else { SHORT };
        // A shortened number would be another number.
        let number = |cell: &str| cell.parse::<f64>().is_ok();
        let cut = cells().map(|cell| if number(cell) { wide(cell) } else { wide(cell).min(most) }).max();
        Room { whole: folded.max(head.width()), folded, least: cut.unwrap_or(0).max(longest_word.min(most)) }
    }

    /// The first columns, with these widths.
    fn with(&self, widths: &[usize]) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns.iter().zip(widths).map(|(head, width)| folded(head, *width)));
        for row in &self.rows {
            table.add_row(row.iter().zip(widths).map(|(cell, width)| cut(cell, *width)));
        }
        for (i, _) in widths.iter().enumerate().filter(|(i, _)| self.right[*i]) {
            if let Some(column) = table.column_mut(i) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }
}

/// Widths of columns that fit: first headers are wrapped, then texts are shortened, the widest
/// most. None if that is not enough.
fn fit(rooms: &[Room], width: usize) -> Option<Vec<usize>> {
    let mut widths: Vec<usize> = rooms.iter().map(|room| room.whole).collect();
    for floor in [|room: &Room| room.folded, |room: &Room| room.least] {
        while total(&widths) > width {
            let spare = |i: &usize| widths[*i].saturating_sub(floor(&rooms[*i]));
            let widest = (0..rooms.len()).filter(|i| spare(i) > 0).max_by_key(|i| (widths[*i], *i));
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
    }
    (total(&widths) <= width).then_some(widths)
}

fn total(widths: &[usize]) -> usize {
    BORDER + widths.iter().map(|width| width + PER_COLUMN).sum::<usize>()
}

/// The width of a cell is that of its longest line.
fn wide(cell: &str) -> usize {
    cell.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// Wraps words that do not fit on one line.
fn folded(head: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in head.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(cut(word, width)),
        }
    }
    lines.join("\n")
}

/// Shortens every line of a cell that is too wide.
fn cut(cell: &str, width: usize) -> String {
    if wide(cell) <= width {
        return cell.to_string();
    }
    let line = |line: &str| {
        if line.width() <= width {
            return line.to_string();
        }
        let (mut kept, mut used) = (String::new(), 1);
        for c in line.chars() {
            used += c.width().unwrap_or(0);
            if used > width {
                break;
            }
            kept.push(c);
        }
        format!("{}…", kept.trim_end())
    };
    cell.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(columns: &[&str], rows: &[&[&str]]) -> Grid {
        let text = |cells: &[&str]| cells.iter().map(|cell| cell.to_string()).collect::<Vec<_>>();
        Grid::new(text(columns), rows.iter().map(|row| text(row)).collect())
    }

    fn widest(text: &str) -> usize {
        text.lines().map(UnicodeWidthStr::width).max().unwrap()
    }

    #[test]
    fn a_file_gets_every_column_whole() {
        let long = "x".repeat(300);
        let text = grid(&["model", "long"], &[&["a", &long]]).drawn(None);
        assert!(text.contains(&long) && !text.contains("not shown"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let columns = ["model", "features", "published position %", "median layer %", "dims", "perplexity"];
        let dims = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]";
        let row = ["miniature_olmoe_1b_7b", "2", "89.3 [88.6, 90.0]", "45.0", dims, "12.52"];
        let table = grid(&columns, &[&row, &["数字の大きいモデル", "3", "–", "1.0", "[]", "–"]]);
        for width in 20..=200 {
            let text = table.drawn(Some(width));
            assert!(widest(&text) <= width, "{width}:\n{text}");
        }
        assert!(!table.drawn(Some(200)).contains("not shown"));
    }

    #[test]
    fn the_last_columns_go_first_and_are_named() {
        let text = grid(&["a", "bbbbbbbb", "cccccccc"], &[&["1", "2", "3"]]).drawn(Some(20));
        assert!(text.contains("bbbbbbbb ") && !text.contains("│ cccc"), "{text}");
        assert!(text.replace('\n', " ").contains("not shown at this width: cccccccc;"), "{text}");
    }

    #[test]
    fn heads_are_folded_before_anything_is_lost() {
        let text = grid(&["model", "largest share of norms"], &[&["a", "45.0"]]).drawn(Some(24));
        assert!(text.contains("45.0") && text.contains("┆ largest ") && !text.contains("not shown"), "{text}");
    }

    #[test]
    fn a_number_is_whole_or_not_there() {
        let number = "123456789012345678901234567890123456";
        for width in 12..60 {
            let text = grid(&["model", "count"], &[&["a", number]]).drawn(Some(width));
            let head = text.lines().nth(1).unwrap();
            assert!(text.contains(number) || !head.contains("count"), "{width}:\n{text}");
        }
    }
}
