//! The format of a text file, recognised by its first bytes and its name. Unsupported formats are
//! named as in `foreign.rs`; only plain text is read as plain text.

use serde::de::IgnoredAny;

use super::failure::TextFailure;
use super::json_sequence;
use super::json_values::{first_value, without_nan};
use super::markup;
use super::tabular::is_tabular;
use super::unpack::Packing;
use crate::error::{Error, Result};
use crate::hub::file_name::{JSON, JSON_LINES, Name, PLAIN, UNCLEAR, delimiter};
use crate::hub::foreign;
use crate::record::TextFormat;
use crate::suggest;

/// The layout of documents in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One text, or several with separators between them.
    Plain,
    /// A JSON object on every line.
    JsonLines,
    /// JSON objects that may have several lines each; often a single one.
    JsonValues,
    /// JSON values, each after a mark of its own (RFC 7464).
    JsonSequence,
    /// One JSON array of objects or of strings.
    JsonArray,
    /// Rows with a header; `delimiter` stands between cells unless the header says otherwise. With
    /// `quoting` cells may stand in quotes; without it quotes are characters like any other.
    Table {
        delimiter: u8,
        quoting: bool,
    },
    Parquet,
}

impl Format {
    /// The name for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "a plain text",
            Self::JsonLines => "JSON Lines",
            Self::JsonValues | Self::JsonSequence | Self::JsonArray => "JSON",
            Self::Table { .. } => "a table",
            Self::Parquet => "Parquet",
        }
    }
}

/// Number of first bytes in which a NUL indicates a binary file, as for git and grep.
const TELLING: usize = 8000;
/// The first bytes of every Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// The format of the file `name` whose decompressed bytes begin with `head`, without a byte order
/// mark; `whole` if they also end there. The user's choice `wanted` has precedence over name and
/// content of a text. `in_column` is true if the user has named a column.
///
/// # Errors
/// `unsupported` for an unsupported format, `not_found` for a pointer in place of the file,
/// `bad_argument` if name and content disagree.
pub(crate) fn judge(
    name: &str,
    head: &[u8],
    whole: bool,
    packing: Option<Packing>,
    wanted: Option<TextFormat>,
    in_column: bool,
) -> Result<Format> {
    let told = name.to_string();
    if head.starts_with(PARQUET) && wanted.is_none_or(|wanted| wanted == TextFormat::Parquet) {
        return match packing {
            None => Ok(Format::Parquet),
            Some(packing) => Err(Error::of(TextFailure::PackedParquet { name: told, packing: packing.name() })),
        };
    }
    if let Some(packing) = packing
        && Packing::of(head).is_some()
    {
        return Err(Error::of(TextFailure::PackedTwice { name: told, packing: packing.name() }));
    }
    let called = Name::of(name);
    let ending = called.ending();
    if let Some(error) = foreign::pointer(name, head) {
        return Err(error);
    }
    if let Some((what, advice)) = foreign::no_text(wanted.is_none().then_some(&called), head) {
        return Err(Error::of(TextFailure::OtherFormat { name: told, what, advice }));
    }
    if let Some(wanted) = wanted {
        return Ok(match wanted {
            TextFormat::Text => Format::Plain,
            TextFormat::Json => json_shape(name, head, whole, false)?,
            TextFormat::Csv => Format::Table { delimiter: b',', quoting: true },
            TextFormat::Tsv => Format::Table { delimiter: b'\t', quoting: true },
            TextFormat::Unquoted => Format::Table { delimiter: delimiter(ending).unwrap_or(b'\t'), quoting: false },
            TextFormat::Parquet => Format::Parquet,
        });
    }
    if let Some(markup) = markup::of(&called, head) {
        return Err(Error::of(TextFailure::OtherFormat { name: told, what: markup.what, advice: markup.advice }));
    }
    if matches!(ending, "parquet" | "pq") {
        return Ok(Format::Parquet);
    }
    let telling = &head[..head.len().min(TELLING)];
    if telling.contains(&0) {
        // In UTF-16 the high byte of most letters is NUL.
        let nul = |from: usize| telling.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count();
        return Err(Error::of(TextFailure::NulBytes { name: told, big_endian: nul(0) > nul(1) }));
    }
    if JSON.contains(&ending) {
        return json_shape(name, head, whole, false);
    }
    if JSON_LINES.contains(&ending) {
        return json_shape(name, head, whole, true);
    }
    if is_of_python(head) {
        return Err(Error::of(TextFailure::OfPython { name: told, as_json: false }));
    }
    if let Some(table) = table(ending) {
        return Ok(table);
    }
    if !is_json(head, whole) {
        let inner = called.endings.iter().find_map(|ending| Some((ending, table(ending)?)));
        return match inner {
            Some((_, table)) if in_column => Ok(table),
            Some((ending, _)) => Err(Error::of(TextFailure::InnerEnding { name: told, ending: ending.to_string() })),
            None if UNCLEAR.contains(&ending) && (in_column || is_tabular(head, whole)) => match in_column {
                true => Ok(Format::Table { delimiter: b',', quoting: true }),
                false => Err(Error::of(TextFailure::LooksLikeTable { name: told })),
            },
            None => Ok(Format::Plain),
        };
    }
    if PLAIN.contains(&ending) {
        return Err(Error::of(TextFailure::LooksLikeJson { name: told }));
    }
    json_shape(name, head, whole, true)
}

fn table(ending: &str) -> Option<Format> {
    delimiter(ending).map(|delimiter| Format::Table { delimiter, quoting: true })
}

/// The layout of JSON. Data that is not JSON is reported line by line.
///
/// # Errors
/// `unsupported` for what Python prints in place of JSON, and for an array on each line.
fn json_shape(name: &str, head: &[u8], whole: bool, lines: bool) -> Result<Format> {
    if is_of_python(head) {
        return Err(Error::of(TextFailure::OfPython { name: name.to_string(), as_json: true }));
    }
    if json_sequence::begins(head) {
        return Ok(Format::JsonSequence);
    }
    let text = head.trim_ascii_start();
    let first = first_value(text);
    let rest = first.end.map(|end| text[end..].trim_ascii_start()).unwrap_or_default();
    Ok(match text.first() {
        Some(b'[') if rest.starts_with(b"[") => {
            return Err(Error::of(TextFailure::SeveralArrays { name: name.to_string() }));
        }
        Some(b'[') => Format::JsonArray,
        Some(b'{') => {
            let alone = first.end.is_some_and(|end| whole && text[end..].trim_ascii().is_empty());
            let behind = first.end.map(|end| &text[end..text.len() - rest.len()]).unwrap_or_default();
            // Another object on the same line.
            let touching = rest.starts_with(b"{") && !behind.contains(&b'\n');
            // An object that continues after the end of its line, or so long that its line may be
            // the whole file.
            let layout = first.lines > 0 || alone || touching || (first.end.is_none() && !lines);
            if layout { Format::JsonValues } else { Format::JsonLines }
        }
        _ => Format::JsonLines,
    })
}

/// True for a beginning like `{'text': ` or `[{'text': `: a dictionary as Python prints it.
fn is_of_python(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    let text = text.strip_prefix(b"[").map_or(text, <[u8]>::trim_ascii_start);
    let Some(key) = text.strip_prefix(b"{'") else { return false };
    let end = key.iter().position(|byte| matches!(byte, b'\'' | b'\n'));
    end.is_some_and(|end| key[end..].strip_prefix(b"'").is_some_and(|rest| rest.trim_ascii_start().starts_with(b":")))
}

/// True if a text begins with a JSON object with keys, or is a JSON array of objects or strings, or
/// several on lines of their own. Prose that begins with a bracket is neither.
fn is_json(head: &[u8], whole: bool) -> bool {
    let text = head.trim_ascii_start();
    if json_sequence::begins(text) {
        return is_json(&text[1..], whole);
    }
    let array = text.starts_with(b"[");
    let inner = text.get(1..).unwrap_or_default().trim_ascii_start().first();
    let likely = match text.first() {
        Some(b'[') => matches!(inner, Some(b'{' | b'"')),
        Some(b'{') => inner == Some(&b'"'),
        _ => false,
    };
    if !likely {
        return false;
    }
    let plain = without_nan(text);
    let text = plain.as_deref().unwrap_or(text);
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => {
            let behind = &text[values.byte_offset()..];
            let rest = behind.trim_ascii_start();
            match rest.first() {
                None | Some(&json_sequence::MARK) => true,
                Some(b'{') => !array,
                Some(b'[') => array && behind[..behind.len() - rest.len()].contains(&b'\n') && is_json(rest, whole),
                Some(_) => false,
            }
        }
        Some(Err(error)) => error.is_eof() && !whole,
        None => false,
    }
}

/// The error for a column that is there more than once.
pub(crate) fn twice(name: &str, column: &str) -> Error {
    Error::of(TextFailure::ColumnTwice { name: name.to_string(), column: column.to_string() })
}

/// The error for a missing column, with the existing ones.
pub(crate) fn no_column(name: &str, column: &str, columns: &[String]) -> Error {
    /// The largest number of columns in a message, and of characters in a name.
    const LISTED: usize = 12;
    const LONGEST: usize = 40;
    // Column names are shown. Other contents of a file that is not a table are not.
    let is_name = |name: &&str| {
        let usual = |c: char| c.is_alphanumeric() || "_-. /()[]#&%@+'!?*".contains(c);
        !name.is_empty() && name.chars().count() <= LONGEST && name.chars().all(usual)
    };
    let known: Vec<&str> = columns.iter().map(String::as_str).filter(is_name).collect();
    let mut listed: Vec<String> = known.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    if columns.len() > listed.len() && !listed.is_empty() {
        listed.push(format!("{} more", columns.len() - listed.len()));
    }
    let there = match (listed.is_empty(), columns.len()) {
        (true, 0) => String::new(),
        (true, 1) => "; the one that there is has a name that is no word".to_string(),
        (true, others) => format!("; there are {others} whose names are no words"),
        (false, _) => format!("; there are {}", listed.join(", ")),
    };
    // The same name within an object or a list is meant more likely than another name.
    let within = known.iter().copied().find(|known| known.rsplit('.').next() == Some(column));
    let hint = match within.or_else(|| suggest::nearest(column, known.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name the column that holds the texts with `column`".to_string(),
    };
    Error::of(TextFailure::NoColumn { name: name.to_string(), column: column.to_string(), there, hint })
}
