//! Tables of commands, in the same layout as those of scripts.

use crate::host::grid::Grid;
use crate::terminal;
use crate::words::rounded;

/// Prints a table. The most important column comes first.
pub(super) fn print_table(columns: &[&str], rows: Vec<Vec<String>>) {
    let columns = columns.iter().map(|column| column.to_string()).collect();
    terminal::line(Grid::new(columns, rows).drawn(terminal::width()));
}

pub(super) fn dollars(amount: f64) -> String {
    rounded(amount, 2)
}

/// Formats seconds as "2 h 5 min".
pub(super) fn age(seconds: f64) -> String {
    let minutes = (seconds.max(0.0) / 60.0) as u64;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{:.0} s", seconds.max(0.0)),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
