//! Tables of the command line, drawn as those of scripts.

use comfy_table::{Table, presets};

use crate::terminal;
use crate::words::rounded;

pub fn print_table(columns: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(columns.to_vec());
    for row in rows {
        table.add_row(row);
    }
    terminal::line(table);
}

pub fn dollars(amount: f64) -> String {
    rounded(amount, 2)
}

/// "2 h 5 min" for seconds.
pub fn age(seconds: f64) -> String {
    let minutes = (seconds.max(0.0) / 60.0) as u64;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{:.0} s", seconds.max(0.0)),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
