//! Primitives that list results and write files below results/: list_results, write_json,
//! write_table, write_text, export_tables; and helpers of reports: html_table, markdown_table,
//! escape_html, stdlib_json, stdlib_text.

use std::collections::BTreeSet;
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, Map};
use serde_json::Value;

use crate::disk;
use crate::error::{Error, Result};
use crate::host::language::growth;
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::language::stdlib;
use crate::host::primitives::script::show::{cell, few};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::run::reads;
use crate::host::values::handles::{StoredHandle, as_json};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::options::number;
use crate::outside;
use crate::results::{self, Table};
use crate::secret::secret_name;

/// The largest number of JSON values in a data file of `stdlib/`.
const DATA_VALUES: usize = 1 << 20;
/// The largest data file in a project's own `stdlib/`, in bytes.
const MAX_DATA: u64 = 64 << 20;
/// The largest number of cells in a written table.
const MAX_CELLS: usize = 1 << 24;

pub(crate) const LIST_RESULTS: Declared<NoOptions> = Declared::new(
    "list_results",
    &["list_results() -> array"],
    "Names of all finished analyses below results/, sorted.",
    "print(list_results());",
);

pub(crate) const WRITE_JSON: Declared<NoOptions> = Declared::new(
    "write_json",
    &["write_json(path: string, value: any) -> string"],
    "Writes a value as JSON and gives the path.",
    "write_json(\"results/summary.json\", #{ models: 7 });",
);

pub(crate) const WRITE_TEXT: Declared<NoOptions> = Declared::new(
    "write_text",
    &["write_text(path: string, text: string) -> string"],
    "Writes a text and gives the path.",
    "write_text(\"results/note.md\", \"# Notes\");",
);

pub(crate) const WRITE_TABLE: Declared<NoOptions> = Declared::new(
    "write_table",
    &[
        "write_table(path: string, rows: array) -> string",
        "write_table(path: string, columns: array, rows: array) -> string",
    ],
    "Writes rows (maps) as a table: CSV, Parquet or JSON by the name of the file.",
    "write_table(\"results/summary.csv\", [#{ model: \"a\", features: 3 }]);",
);

pub(crate) const EXPORT_TABLES: Declared<NoOptions> = Declared::new(
    "export_tables",
    &["export_tables(stored: results, format: string) -> array"],
    "Writes every table of a stored analysis beside it, as \"csv\" or \"parquet\", and gives the paths.",
    acts!(
        "save_results(\"exported\", #{ activations: acts, found: acts.detect_outliers() });\nprint(load_results(\"exported\").export_tables(\"csv\").len());"
    ),
);

pub(crate) const STDLIB_JSON: Declared<NoOptions> = Declared::new(
    "stdlib_json",
    &["stdlib_json(name: string) -> any"],
    "A data file of the standard library as a value; one in the project's stdlib/ wins.",
    "print(type_of(stdlib_json(\"published.json\")));",
);

pub(crate) const STDLIB_TEXT: Declared<NoOptions> = Declared::new(
    "stdlib_text",
    &["stdlib_text(name: string) -> string"],
    "A data file of the standard library as text; one in the project's stdlib/ wins.",
    "print(stdlib_text(\"report.html\").len() > 0);",
);

pub(crate) const HTML_TABLE: Declared<NoOptions> = Declared::new(
    "html_table",
    &["html_table(columns: array, rows: array) -> string"],
    "Rows as a table for a web page.",
    "print(html_table([\"model\", \"features\"], [#{ model: \"a\", features: 3 }]));",
);

pub(crate) const MARKDOWN_TABLE: Declared<NoOptions> = Declared::new(
    "markdown_table",
    &["markdown_table(columns: array, rows: array) -> string"],
    "Rows as a table in Markdown.",
    "print(markdown_table([\"model\", \"features\"], [#{ model: \"a\", features: 3 }]));",
);

pub(crate) const ESCAPE_HTML: Declared<NoOptions> = Declared::new(
    "escape_html",
    &["escape_html(text: string) -> string"],
    "A text as it stands in a web page.",
    "print(escape_html(\"a < b\"));",
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(LIST_RESULTS.name(), move || -> ScriptResult<Array> {
        let names = thrown(results::list(&c.results()))?;
        Ok(names.into_iter().map(Dynamic::from).collect())
    });
    let c = context.clone();
    engine.register_fn(WRITE_JSON.name(), move |path: &str, value: Dynamic| thrown(write_json(&c, path, &value)));
    let c = context.clone();
    engine.register_fn(WRITE_TEXT.name(), move |path: &str, text: &str| {
        thrown(write(&c, "write_text", path, text.as_bytes()))
    });
    let c = context.clone();
    engine.register_fn(WRITE_TABLE.name(), move |path: &str, rows: Array| thrown(write_table(&c, path, &[], &rows)));
    let c = context.clone();
    engine.register_fn(WRITE_TABLE.name(), move |path: &str, columns: Array, rows: Array| {
        let columns: Vec<String> = columns.iter().map(Dynamic::to_string).collect();
        thrown(write_table(&c, path, &columns, &rows))
    });
    let c = context.clone();
    engine.register_fn(EXPORT_TABLES.name(), move |stored: StoredHandle, format: &str| {
        thrown(export(&c, &stored, format))
    });
    let c = context.clone();
    engine.register_fn(STDLIB_JSON.name(), move |name: &str| thrown(stdlib_json(&c, name)));
    let c = context.clone();
    engine.register_fn(STDLIB_TEXT.name(), move |name: &str| thrown(stdlib_text(&c, STDLIB_TEXT.name(), name)));
    engine.register_fn(HTML_TABLE.name(), |columns: Array, rows: Array| html_table(&columns, &rows));
    engine.register_fn(MARKDOWN_TABLE.name(), |columns: Array, rows: Array| markdown_table(&columns, &rows));
    engine.register_fn(ESCAPE_HTML.name(), |text: &str| escape(text));
}

/// Writes into one of the project's folders, or where the user allows it, and returns the path.
pub(crate) fn write(context: &Context, function: &str, path: &str, bytes: &[u8]) -> Result<String> {
    let file = places::to_write(context, function, path)?;
    // Scripts cannot write keys, so that keys can be trusted.
    if secret_name(path.as_ref()) {
        return Err(Error::bad_argument(format!("{function}: \"{path}\" has a name that secrets have"))
            .hint("keys, tokens and passwords are written by no script: name the file results/summary.json, say"));
    }
    let given = places::relative(context, path);
    match context.plan() {
        Some(stage) => stage.writes(&given),
        None => disk::write(&file, bytes)?,
    }
    Ok(given.display().to_string())
}

fn write_json(context: &Context, path: &str, value: &Dynamic) -> Result<String> {
    let mut text = serde_json::to_string_pretty(&as_json(value)?).expect("JSON is text");
    text.push('\n');
    write(context, "write_json", path, text.as_bytes())
}

fn write_table(context: &Context, path: &str, columns: &[String], rows: &Array) -> Result<String> {
    let row = |row: &Dynamic| match as_json(row)? {
        Value::Object(map) => Ok(map),
        other => Err(Error::bad_argument(format!("write_table: {other} is not a row")).hint("every row is a map")),
    };
    let rows = rows.iter().map(row).collect::<Result<Vec<_>>>()?;
    let keys: BTreeSet<&String> = rows.iter().flat_map(serde_json::Map::keys).collect();
    let width = if columns.is_empty() { keys.len() } else { columns.len() };
    if width.saturating_mul(rows.len()) > MAX_CELLS {
        let message = format!("write_table: {width} columns and {} rows", rows.len());
        return Err(Error::bad_argument(message).hint(format!("a table may have {MAX_CELLS} cells")));
    }
    if columns.iter().collect::<BTreeSet<_>>().len() < columns.len() {
        return Err(Error::bad_argument("write_table: a column is named twice").hint("name each column once"));
    }
    let table = Table::new(columns, &rows);
    let bytes = match path.rsplit('.').next() {
        Some("csv") => table.csv()?,
        Some("parquet") => table.parquet()?,
        Some("json") => serde_json::to_vec_pretty(&rows).expect("JSON is text"),
        _ => {
            return Err(Error::bad_argument(format!("write_table: \"{path}\" is neither .csv, .parquet nor .json"))
                .hint("the name of the file says the format"));
        }
    };
    write(context, "write_table", path, &bytes)
}

fn export(context: &Context, stored: &StoredHandle, format: &str) -> Result<Array> {
    if !["csv", "parquet"].contains(&format) {
        return Err(Error::bad_argument(format!("export_tables: no format {format:?}"))
            .hint("formats are \"csv\" and \"parquet\""));
    }
    let folder = stored.stored.folder.join("tables");
    places::within(context, "export_tables", &context.root.join(&folder).join("features"), "results").map_err(
        |error| error.hint("tables are written beside an analysis below results/: copy it there and load that, or say `outlier run --allow-write \
             DIR SCRIPT`"),
    )?;
    let mut paths = Array::new();
    for (name, table) in results::tables(&stored.stored)? {
        let bytes = if format == "csv" { table.csv()? } else { table.parquet()? };
        let path = folder.join(format!("{name}.{format}"));
        match context.plan() {
            Some(stage) => stage.writes(&path),
            None => disk::write(&context.root.join(&path), &bytes)?,
        }
        paths.push(path.display().to_string().into());
    }
    Ok(paths)
}

/// The text of a data file of the standard library. One in the project's `stdlib/` has precedence.
fn data(context: &Context, name: &str) -> Option<String> {
    let embedded = stdlib::data(name)?;
    let own = context.root.join("stdlib").join(name);
    let read =
        || outside::read(&own, MAX_DATA).ok().and_then(|data| String::from_utf8(outside::without_bom(data)).ok());
    // A link that leaves the project is not followed.
    let own = if reads::inside(context, &own) { read() } else { None };
    Some(own.unwrap_or_else(|| embedded.to_string()))
}

fn stdlib_text(context: &Context, function: &str, name: &str) -> Result<String> {
    data(context, name).ok_or_else(|| {
        Error::bad_argument(format!("{function}: there is no {name:?}"))
            .hint(crate::suggest::hint(name, stdlib::data_names()))
    })
}

fn stdlib_json(context: &Context, name: &str) -> Result<Dynamic> {
    let text = stdlib_text(context, STDLIB_JSON.name(), name)?;
    let json = outside::json::from_slice(text.as_bytes(), DATA_VALUES)
        .map_err(|e| Error::corrupt(format!("reading stdlib/{name}: {}", outside::complaint(e))))?;
    Ok(to_dynamic(&json))
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Texts of a row's cells, with their numbers if they are numbers.
fn cells(columns: &Array, row: &Dynamic) -> Vec<(String, Option<f64>)> {
    let map = row.read_lock::<Map>();
    let shown = |column: &Dynamic| {
        let value = map.as_ref().and_then(|map| map.get(column.to_string().as_str()));
        (cell(value), value.and_then(number))
    };
    columns.iter().map(shown).collect()
}

/// Numbers have their value as an attribute, so that a page can sort by it.
fn html_table(columns: &Array, rows: &Array) -> ScriptResult<String> {
    few(columns.len(), rows.len())?;
    let mut html = String::from("<table class=\"sortable\"><thead><tr>");
    columns.iter().for_each(|column| html += &format!("<th>{}</th>", escape(&column.to_string())));
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        for (text, value) in cells(columns, row) {
            match value {
                Some(value) => html += &format!("<td class=\"number\" data-value=\"{value}\">{}</td>", escape(&text)),
                None => html += &format!("<td>{}</td>", escape(&text)),
            }
        }
        html += "</tr>\n";
        growth::fits(html.len())?;
    }
    Ok(html + "</tbody></table>\n")
}

fn markdown_table(columns: &Array, rows: &Array) -> ScriptResult<String> {
    few(columns.len(), rows.len())?;
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let safe = |text: String| text.replace('|', "\\|").replace('\n', " ");
    let mut text = line(columns.iter().map(|column| safe(column.to_string())).collect());
    text += &line(columns.iter().map(|_| "---".to_string()).collect());
    for row in rows {
        text += &line(cells(columns, row).into_iter().map(|(text, _)| safe(text)).collect());
        growth::fits(text.len())?;
    }
    Ok(text)
}
