//! Whether a text is a table, where its name does not tell.

/// The possible delimiters of cells.
pub(super) const DELIMITERS: &[u8] = b",;\t|";
/// Number of first rows that show whether a text is a table.
const TELLING_ROWS: usize = 20;

/// True if the first lines of a text have equally many cells, two at least, with the same delimiter
/// between them.
pub(super) fn is_tabular(head: &[u8], whole: bool) -> bool {
    let mut lines: Vec<&[u8]> = head.split_inclusive(|byte| *byte == b'\n').collect();
    if !whole && lines.last().is_some_and(|last| !last.ends_with(b"\n")) {
        lines.pop();
    }
    let filled = lines.iter().map(|line| line.trim_ascii_end()).filter(|line| !line.is_empty());
    let rows: Vec<&[u8]> = filled.take(TELLING_ROWS).collect();
    // Delimiters in front indent lines, and those in quotes belong to texts.
    let cells = |row: &[u8], delimiter: u8| {
        let (mut inside, mut count) = (false, 0);
        for byte in row {
            inside ^= *byte == b'"';
            count += usize::from(*byte == delimiter && !inside);
        }
        if row.first() == Some(&delimiter) { 0 } else { count }
    };
    let fits = |delimiter: &u8| {
        let first = rows.first().map_or(0, |row| cells(row, *delimiter));
        // Prose has commas and semicolons too.
        let enough = if *delimiter == b'\t' { 2 } else { 3 };
        first > 0 && rows.len() >= enough && rows.iter().all(|row| cells(row, *delimiter) == first)
    };
    DELIMITERS.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_equally_many_cells_in_each_line() {
        for (text, whole, table) in [
            ("n\ttext\n1\ta, b\n", true, true),
            ("n,text\n1,a\n\n2,\"b, c\"\n", true, true),
            ("n;text\r\n1;a\r\n2;b", true, true),
            // The last line is cut off.
            ("n,text\n1,a\n2,b\n3", false, true),
            ("n,text\n1,a\n2,b\n3", true, false),
            // Prose, indented and not.
            ("To be, or not\nto be, that is\n", true, false),
            ("\tTo be\n\tor not\n\tto be\n", true, false),
            ("To be, or not,\nto be, that is\nthe question\n", true, false),
            ("one line\twith a tab", true, false),
            ("", true, false),
        ] {
            assert_eq!(is_tabular(text.as_bytes(), whole), table, "{text:?}");
        }
    }
}
