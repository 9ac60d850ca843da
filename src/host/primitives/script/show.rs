//! Primitives for output: table, show, print_wrapped, log, format_bytes, format_count,
//! format_number. Data is written to stdout, notes to stderr.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, FLOAT, INT, Identifier, Map};

use crate::error::Error;
use crate::host::language::bounds::too_large;
use crate::host::language::growth::fits;
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, throw};
use crate::host::run::context::Context;
use crate::host::values::findings::{BootstrapHandle, DetectionHandle};
use crate::host::values::grid::Grid;
use crate::host::values::handles;
use crate::host::values::layout::laid_out;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::options::number;
use crate::host::values::readable::Readable;
use crate::terminal;
use crate::words::{counted, format_bytes, in_lines, rounded};

/// Longer values are shortened.
pub(crate) const MOST_SHOWN: usize = 100;
const MOST_ROWS: usize = 20;

/// The largest number of cells in a shown table.
const MAX_CELLS: usize = 1_000_000;

pub(crate) const TABLE: Declared<NoOptions> = Declared::new(
    "table",
    &["table(rows: array) -> ()", "table(columns: array, rows: array) -> ()"],
    "Prints rows, each a map, as a table; `columns` chooses and orders. Where the terminal is too narrow, heads are \
     folded, then long texts are cut, then the last columns are left out and named: put first what matters most. \
     A file or a pipe gets everything.",
    r#"table(["threshold", "features"], [#{ threshold: 6.0, features: 3 }, #{ threshold: 7.0, features: 1 }]);"#,
);

pub(crate) const PRINT_WRAPPED: Declared<NoOptions> = Declared::new(
    "print_wrapped",
    &["print_wrapped(text: string) -> ()"],
    "Prints a text whose lines are broken between words where the terminal ends; to a file or a pipe as it is.",
    r#"print_wrapped("A sentence that may be longer than a line of the terminal is broken between its words.");"#,
);

pub(crate) const SHOW: Declared<NoOptions> = Declared::new(
    "show",
    &["show(value: any) -> ()"],
    "Prints a value for people, as `outlier repl` does: rows and records as tables, everything else as `print`.",
    r#"show(#{ features: 3, classification: "SYSTEMATIC" });"#,
);

pub(crate) const LOG: Declared<NoOptions> = Declared::new(
    "log",
    &["log(text: string) -> ()"],
    "One line for the user that is not data: to stderr, and to the log of with_log.",
    r#"log("half way");"#,
);

pub(crate) const FORMAT_BYTES: Declared<NoOptions> = Declared::new(
    "format_bytes",
    &["format_bytes(bytes: number) -> string"],
    "Bytes with a unit: 1500000 is 1.50 MB.",
    r#"print(format_bytes(1500000));"#,
);

pub(crate) const FORMAT_COUNT: Declared<NoOptions> = Declared::new(
    "format_count",
    &["format_count(count: int, one: string) -> string"],
    "A number with what it counts, in the singular for one: 1 feature, 3 features.",
    r#"print(format_count(1, "feature"));"#,
);

pub(crate) const FORMAT_NUMBER: Declared<NoOptions> = Declared::new(
    "format_number",
    &["format_number(value: number, digits?: int) -> string"],
    "A number with so many decimals; at most four where none are given.",
    r#"print(format_number(2.0 / 3.0, 2));"#,
);

pub(crate) const TO_JSON: Declared<NoOptions> = Declared::new(
    "to_json",
    &["to_json(value: any) -> string"],
    "A record, map or array as JSON.",
    r#"print(#{ features: [1, 2] }.to_json());"#,
);

pub(crate) const TO_STRING: Declared<NoOptions> = Declared::new(
    "to_string",
    &["to_string(value: any) -> string"],
    "A value as text; handles show what they are.",
    r#"print([1, 2].to_string());"#,
);

pub(crate) const TO_DEBUG: Declared<NoOptions> = Declared::new(
    "to_debug",
    &["to_debug(value: any) -> string"],
    "A value as text for debugging; handles show all their fields.",
    r#"print("a".to_debug());"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(TABLE.name(), move |rows: Array| table(&[], &rows, width(&c)).map(|text| c.prints(&text)));
    let c = context.clone();
    engine.register_fn(TABLE.name(), move |columns: Array, rows: Array| {
        let columns: Vec<String> = columns.iter().map(Dynamic::to_string).collect();
        table(&columns, &rows, width(&c)).map(|text| c.prints(&text))
    });
    let c = context.clone();
    engine.register_fn(SHOW.name(), move |value: Dynamic| c.prints(&shown(&value, width(&c))));
    let c = context.clone();
    engine.register_fn(PRINT_WRAPPED.name(), move |text: &str| c.prints(&in_lines(text, width(&c))));
    let c = context.clone();
    engine.register_fn(LOG.name(), move |text: &str| {
        c.acts("log");
        c.line(text)
    });
    let c = context.clone();
    engine.register_fn("print", move |map: Map| laid_out(&map.into(), width(&c)));
    let c = context.clone();
    engine.register_fn("print", move |items: Array| laid_out(&items.into(), width(&c)));
    let c = context.clone();
    engine.register_fn("print", move |found: DetectionHandle| found.shown(width(&c)));
    let c = context.clone();
    engine.register_fn("print", move |found: BootstrapHandle| found.shown(width(&c)));
    engine.register_fn(FORMAT_BYTES.name(), |bytes: INT| format_bytes(bytes as f64));
    engine.register_fn(FORMAT_BYTES.name(), |bytes: FLOAT| format_bytes(bytes));
    engine.register_fn(FORMAT_COUNT.name(), |count: INT, one: &str| match usize::try_from(count) {
        Ok(count) => counted(count, one),
        Err(_) => format!("{count} {one}"),
    });
    engine.register_fn(FORMAT_NUMBER.name(), |value: FLOAT| short(value));
    engine.register_fn(FORMAT_NUMBER.name(), |value: INT| value.to_string());
    engine.register_fn(FORMAT_NUMBER.name(), |value: Dynamic, digits: INT| match number(&value) {
        Some(value) => rounded(value, digits.clamp(0, 17) as usize),
        None => value.to_string(),
    });
}

/// The width of a script's output. Plans and tests are the same everywhere.
fn width(context: &Context) -> Option<usize> {
    if context.stage.is_some() { None } else { terminal::width() }
}

/// Fields of records that identify a row, and the next ones. Others follow in alphabetical order.
const FIRST: [&str; 11] = [
    "field",
    "name",
    "model",
    "feature_dim",
    "norm",
    "classification",
    "layer_percentage",
    "seq_percentage",
    "max_magnitude",
    "num_features",
    "num_outliers",
];

/// Rows (maps) as a table of at most `width` characters. `columns` selects and orders; by default
/// all keys of the first row.
fn table(columns: &[String], rows: &Array, width: Option<usize>) -> ScriptResult<String> {
    let maps: Option<Vec<Map>> = rows.iter().map(as_map).collect();
    let maps = maps.ok_or_else(|| {
        throw(Error::bad_argument("table: every row must be a map").hint("table([#{ name: \"a\", count: 1 }])"))
    })?;
    let keys = || {
        let mut keys: Vec<String> =
            maps.first().map(|row| row.keys().map(|key| key.to_string()).collect()).unwrap_or_default();
        keys.sort_by_key(|key| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
        keys
    };
    let columns: Vec<String> = if columns.is_empty() { keys() } else { columns.to_vec() };
    if columns.is_empty() {
        return Ok("(a table of no columns)\n".to_string());
    }
    few(columns.len(), rows.len())?;
    // Every cell is padded to the widest of its column.
    let mut line = 0;
    for column in &columns {
        let widths = maps.iter().map(|row| cell(row.get(column.as_str())).len());
        line += widths.max().unwrap_or(0).max(column.len());
        fits(line.saturating_mul(maps.len() + 1))?;
    }
    let cells = maps.iter().map(|row| columns.iter().map(|column| cell(row.get(column.as_str()))).collect());
    let numeric = |column: &str| {
        let values = || maps.iter().filter_map(|row| row.get(column));
        let missing = |value: &Dynamic| matches!(cell(Some(value)).as_str(), "" | "–");
        values().any(|value| number(value).is_some()) && values().all(|value| number(value).is_some() || missing(value))
    };
    let right: Vec<usize> = (0..columns.len()).filter(|i| numeric(&columns[*i])).collect();
    Ok(Grid::new(columns.clone(), cells.collect()).right(right).drawn(width))
}

/// A map, or the fields of a handle.
fn as_map(value: &Dynamic) -> Option<Map> {
    value.clone().try_cast::<Map>().or_else(|| to_dynamic(&handles::handle_json(value)?).try_cast())
}

/// Checks the number of cells of a table.
pub(crate) fn few(columns: usize, rows: usize) -> ScriptResult<()> {
    match columns.saturating_mul(rows) > MAX_CELLS {
        true => Err(too_large("number of cells of a table")),
        false => Ok(()),
    }
}

pub(crate) fn cell(value: Option<&Dynamic>) -> String {
    match value {
        None => String::new(),
        Some(value) if value.is_unit() => "–".to_string(),
        Some(value) => match value.as_float() {
            Ok(float) => short(float),
            Err(_) => value.to_string(),
        },
    }
}

/// At most four decimals, without trailing zeros.
pub(crate) fn short(value: f64) -> String {
    let text = rounded(value, 4);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A value for people at a terminal: rows as a table, records as a table of their fields.
pub(crate) fn pretty(value: &Dynamic) -> String {
    shown(value, terminal::width())
}

fn shown(value: &Dynamic, width: Option<usize>) -> String {
    if let Some(text) = handles::shown(value, width) {
        return text;
    }
    if let Some(items) = value.read_lock::<Array>()
        && !items.is_empty()
        && items.iter().all(|item| item.is_map())
    {
        let shown: Array = items.iter().take(MOST_ROWS).map(flat).collect();
        let more = items.len().saturating_sub(MOST_ROWS);
        let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
        return table(&[], &shown, width).map_or_else(|_| value.to_string(), |table| format!("{table}{more}"));
    }
    let map = match value.read_lock::<Map>() {
        Some(map) => Some(map.clone()),
        None => as_map(value),
    };
    let Some(map) = map else {
        return laid_out(value, width);
    };
    if map.is_empty() {
        return "#{}".to_string();
    }
    let row = |(key, value): (&Identifier, &Dynamic)| {
        let mut row = Map::new();
        row.insert("field".into(), key.as_str().into());
        row.insert("value".into(), brief(value));
        Dynamic::from(row)
    };
    let rows: Array = map.iter().map(row).collect();
    let columns = ["field".to_string(), "value".to_string()];
    table(&columns, &rows, width).unwrap_or_else(|_| value.to_string())
}

/// True if `pretty` shows only a part of the value.
pub(crate) fn shortened(value: &Dynamic) -> bool {
    let any = |map: &Map| map.values().any(|value| !is_whole(value));
    if let Some(items) = value.read_lock::<Array>() {
        let rows = !items.is_empty() && items.iter().all(Dynamic::is_map);
        return rows
            && (items.len() > MOST_ROWS
                || items.iter().any(|row| row.read_lock::<Map>().is_some_and(|row| any(&row))));
    }
    if handles::shown(value, None).is_some() {
        return true;
    }
    match value.read_lock::<Map>() {
        Some(map) => any(&map),
        None => handles::handle_json(value).and_then(|json| to_dynamic(&json).try_cast()).is_some_and(|map| any(&map)),
    }
}

/// True if a cell shows the whole value.
fn is_whole(value: &Dynamic) -> bool {
    let shown = brief(value).to_string();
    !(value.is_array() && shown.ends_with(" items]") || value.is_map() && shown.ends_with('…'))
}

/// A row with shortened cells.
fn flat(row: &Dynamic) -> Dynamic {
    match row.read_lock::<Map>() {
        Some(map) => map.iter().map(|(key, value)| (key.clone(), brief(value))).collect::<Map>().into(),
        None => row.clone(),
    }
}

/// A shortened cell.
fn brief(value: &Dynamic) -> Dynamic {
    if let Some(items) = value.read_lock::<Array>() {
        let plain = items.len() <= 8 && items.iter().all(|item| !item.is_map() && !item.is_array());
        return if plain { value.to_string().into() } else { format!("[{}]", counted(items.len(), "item")).into() };
    }
    if let Some(map) = value.read_lock::<Map>() {
        let text: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", cell(Some(value)))).collect();
        return cut(&text.join(", "), MOST_SHOWN).into();
    }
    value.clone()
}

/// The beginning of a text.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
