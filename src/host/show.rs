//! Primitives that show: table, log, format_bytes, format_number. Data goes to stdout, notes to stderr.

use std::sync::Arc;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use rhai::{Array, Dynamic, Engine, FLOAT, INT, Map};

use super::context::Context;
use super::growth::{fits, too_large};
use super::options::number;
use super::problem::{ScriptResult, throw};
use crate::error::Error;

/// Cells of a table that is shown.
const MAX_CELLS: usize = 1_000_000;

pub fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn("table", move |rows: Array| table(&[], &rows).map(|text| c.data(&text)));
    let c = context.clone();
    engine.register_fn("table", move |columns: Array, rows: Array| {
        let columns: Vec<String> = columns.iter().map(Dynamic::to_string).collect();
        table(&columns, &rows).map(|text| c.data(&text))
    });
    let c = context.clone();
    engine.register_fn("log", move |text: &str| c.line(text));
    engine.register_fn("format_bytes", |bytes: INT| format_bytes(bytes as f64));
    engine.register_fn("format_bytes", |bytes: FLOAT| format_bytes(bytes));
    engine.register_fn("format_number", |value: FLOAT| short(value));
    engine.register_fn("format_number", |value: INT| value.to_string());
    engine.register_fn("format_number", |value: Dynamic, digits: INT| match number(&value) {
        Some(value) => format!("{value:.*}", digits.clamp(0, 17) as usize),
        None => value.to_string(),
    });
}

/// Decimal units, as disks and networks are sold.
pub fn format_bytes(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.2} {}", units[unit]) }
}

/// Rows (maps) as a table; `columns` chooses and orders, else all keys of the first row.
pub fn table(columns: &[String], rows: &Array) -> ScriptResult<String> {
    let maps: Option<Vec<Map>> = rows.iter().map(|row| row.clone().try_cast::<Map>()).collect();
    let maps = maps.ok_or_else(|| {
        throw(Error::bad_argument("table: every row must be a map").hint("table([#{ name: \"a\", count: 1 }])"))
    })?;
    let keys = || maps.first().map(|row| row.keys().map(|key| key.to_string()).collect()).unwrap_or_default();
    let columns: Vec<String> = if columns.is_empty() { keys() } else { columns.to_vec() };
    few(columns.len(), rows.len())?;
    // Every cell is as wide as the widest of its column.
    let mut line = 0;
    for column in &columns {
        let widths = maps.iter().map(|row| cell(row.get(column.as_str())).len());
        line += widths.max().unwrap_or(0).max(column.len());
        fits(line.saturating_mul(maps.len() + 1))?;
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(&columns);
    for row in &maps {
        table.add_row(columns.iter().map(|column| cell(row.get(column.as_str()))));
    }
    for (i, column) in columns.iter().enumerate() {
        let numeric = maps.iter().any(|row| row.get(column.as_str()).is_some_and(|v| number(v).is_some()));
        if let (true, Some(column)) = (numeric, table.column_mut(i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.to_string())
}

/// Whether a table has few enough cells.
pub fn few(columns: usize, rows: usize) -> ScriptResult<()> {
    match columns.saturating_mul(rows) > MAX_CELLS {
        true => Err(too_large("number of cells of a table")),
        false => Ok(()),
    }
}

pub fn cell(value: Option<&Dynamic>) -> String {
    match value {
        None => String::new(),
        Some(value) if value.is_unit() => "–".to_string(),
        Some(value) => match value.as_float() {
            Ok(float) => short(float),
            Err(_) => value.to_string(),
        },
    }
}

/// At most four decimals, no trailing zeros.
pub fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
