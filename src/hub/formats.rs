//! What a file of texts is: told by its first bytes and by its name. What is in another format is named, with what to do about
//! it; nothing is read as plain text that is none.

use serde::de::IgnoredAny;

use super::file_name::{Name, PLAIN};
use super::json_values::{first_value, without_nan};
use super::markup;
use super::unpack::Packing;
use crate::error::{Error, Result};
use crate::outside::shown;
use crate::record::TextFormat;
use crate::suggest;

/// How documents stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A text, or several with separators between them.
    Plain,
    /// A JSON object on every line.
    JsonLines,
    /// JSON objects, each on as many lines as it likes; often a single one.
    JsonValues,
    /// One JSON array of objects or of texts.
    JsonArray,
    /// Rows with a header; `delimiter` stands between cells unless the header says otherwise.
    Table {
        delimiter: u8,
    },
    Parquet,
}

impl Format {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "a plain text",
            Self::JsonLines => "JSON Lines",
            Self::JsonValues | Self::JsonArray => "JSON",
            Self::Table { .. } => "a table",
            Self::Parquet => "Parquet",
        }
    }
}

/// Bytes in which a NUL shows that a file is no text, as for git and grep.
const TELLING: usize = 8000;
/// What every Parquet file begins with.
const PARQUET: &[u8] = b"PAR1";

/// Endings of names of tables, and what stands between their cells: within a name they are asked about.
const TABLES: &[(&str, u8)] = &[("csv", b','), ("tsv", b'\t'), ("psv", b'|')];

/// A format that is not read.
struct Other {
    what: &'static str,
    /// What such files begin with, one of these.
    begins: &'static [&'static [u8]],
    /// How their names end.
    endings: &'static [&'static str],
    advice: &'static str,
}

const UNPACK: &str = "unpack it and name the file in it";
const SAVE: &str = "save or convert it as plain text (UTF-8)";
const EXPORT: &str = "write its texts to a Parquet, JSON Lines or CSV file";
const WEIGHTS: &str = "is it a file of weights? texts come from text, JSON, CSV and Parquet files";
const DATASETS: &str = "write it as Parquet: datasets.load_from_disk(FOLDER).to_parquet(\"texts.parquet\") in Python, or \
                        pyarrow.parquet.write_table";
const POINTER: &str =
    "the file itself has not been fetched: run git lfs pull where it was cloned, or download it from its page";
const OTHERS: &[Other] = &[
    other("a Git LFS pointer", &[b"version https://git-lfs.github.com/spec/"], &[], POINTER),
    other("a git-annex pointer", &[b"/annex/objects/"], &[], "the file itself has not been fetched: run git annex get"),
    // What stands in zip archives is told by the name before the archive is.
    other("a Word or OpenDocument text", &[], &["doc", "docx", "odt", "rtf", "epub"], SAVE),
    other("a spreadsheet", &[], &["xls", "xlsx", "ods"], "save the sheet as CSV"),
    other(
        "a NumPy file",
        &[b"\x93NUMPY"],
        &["npy", "npz"],
        "token ids can be given as safetensors or JSON, under `ids`",
    ),
    other("a PyTorch file", &[], &["pt", "pth", "ckpt"], WEIGHTS),
    other("a pickle file", &[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"], &["pkl", "pickle"], EXPORT),
    other(
        "a safetensors file",
        &[],
        &["safetensors"],
        "token ids go under `ids`: load_tokens(#{ ids: \"x.safetensors\" })",
    ),
    other("a GGUF file", &[b"GGUF\x02\0", b"GGUF\x03\0"], &["gguf"], WEIGHTS),
    other("a zip archive", &[b"PK\x03\x04", b"PK\x05\x06"], &["zip"], UNPACK),
    other("a tar archive", &[], &["tar", "tgz"], UNPACK),
    other("packed with bzip2", BZIP2, &["bz2"], "unpack it first: bzip2 -dk FILE; gzip and zstd are read as they are"),
    other(
        "packed with xz",
        &[b"\xfd7zXZ\0"],
        &["xz", "lzma"],
        "unpack it first: xz -dk FILE; gzip and zstd are read as they are",
    ),
    other(
        "packed with lz4",
        &[b"\x04\x22\x4d\x18"],
        &["lz4"],
        "unpack it first: lz4 -d FILE; gzip and zstd are read as they are",
    ),
    other("a 7z archive", &[b"7z\xbc\xaf\x27\x1c"], &["7z"], UNPACK),
    other("a RAR archive", &[b"Rar!\x1a\x07"], &["rar"], UNPACK),
    other("packed with brotli", &[], &["br"], "unpack it first: brotli -dk FILE; gzip and zstd are read as they are"),
    other("packed with compress", &[b"\x1f\x9d"], &["z"], "unpack it first: gzip -dk FILE"),
    other("an Arrow file", &[b"ARROW1", b"FEA1", b"\xff\xff\xff\xff"], &["arrow", "feather", "ipc"], DATASETS),
    other("an ORC file", &[], &["orc"], EXPORT),
    other("an Avro file", &[b"Obj\x01"], &["avro"], EXPORT),
    other("a TFRecord file", &[], &["tfrecord"], EXPORT),
    other("an HDF5 file", &[b"\x89HDF\r\n"], &["h5", "hdf5"], EXPORT),
    other("an SQLite database", &[b"SQLite format 3\0"], &["sqlite", "sqlite3", "db"], EXPORT),
    other("an encrypted Parquet file", &[b"PARE"], &[], "decrypt it first"),
    other("a PDF", &[b"%PDF-"], &["pdf"], "extract its text first: pdftotext FILE"),
    other("PostScript", &[b"%!PS"], &["ps"], "extract its text first: ps2ascii FILE"),
    other("an Office document", &[b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"], &[], SAVE),
    other("RTF", &[b"{\\rtf"], &[], SAVE),
    other("an image", &[b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"], &["png", "jpg", "jpeg", "gif"], SAVE),
    other("a program", &[b"\x7fELF", b"MZ\x90\0"], &[], SAVE),
    // UTF-32 begins with the mark of UTF-16.
    other(
        "UTF-32 text",
        &[b"\xff\xfe\0\0", b"\0\0\xfe\xff"],
        &[],
        "convert it first: iconv -f UTF-32 -t UTF-8 FILE > NEW",
    ),
    other("UTF-16 text", &[b"\xff\xfe", b"\xfe\xff"], &[], "convert it first: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
];
/// Formats that hold files of others.
const CONTAINERS: &[&str] = &["a zip archive", "a pickle file"];
/// The digit is how hard it was packed.
const BZIP2: &[&[u8]] = &[
    b"BZh11AY&SY",
    b"BZh21AY&SY",
    b"BZh31AY&SY",
    b"BZh41AY&SY",
    b"BZh51AY&SY",
    b"BZh61AY&SY",
    b"BZh71AY&SY",
    b"BZh81AY&SY",
    b"BZh91AY&SY",
];

const fn other(
    what: &'static str,
    begins: &'static [&'static [u8]],
    endings: &'static [&'static str],
    advice: &'static str,
) -> Other {
    Other { what, begins, endings, advice }
}

/// The format of the file `name` whose unpacked bytes begin with `head`, without a byte order mark; `whole` where they also end
/// there. What the user says, `wanted`, wins over name and content of a text; `in_column` where he has named a column.
///
/// # Errors
/// `unsupported` for a format that is not read, `not_found` where only a pointer to the file is there, `bad_argument` where name
/// and content do not agree.
pub fn judge(
    name: &str,
    head: &[u8],
    whole: bool,
    packing: Option<Packing>,
    wanted: Option<TextFormat>,
    in_column: bool,
) -> Result<Format> {
    if head.starts_with(PARQUET) && wanted.is_none_or(|wanted| wanted == TextFormat::Parquet) {
        return match packing {
            None => Ok(Format::Parquet),
            Some(packing) => Err(Error::unsupported(format!("{name} is Parquet packed with {}", packing.name()))
                .hint("unpack it first: of a Parquet file only the parts that are needed are read")),
        };
    }
    if let Some(packing) = packing
        && Packing::of(head).is_some()
    {
        return Err(Error::unsupported(format!("{name} is packed twice, outside with {}", packing.name())).hint(UNPACK));
    }
    let called = Name::of(name);
    let ending = called.ending();
    refuse(name, head, if wanted.is_some() { "" } else { ending })?;
    if let Some(wanted) = wanted {
        return Ok(match wanted {
            TextFormat::Text => Format::Plain,
            TextFormat::Json => json_shape(head, whole, false),
            TextFormat::Csv => Format::Table { delimiter: b',' },
            TextFormat::Tsv => Format::Table { delimiter: b'\t' },
            TextFormat::Parquet => Format::Parquet,
        });
    }
    if let Some(markup) = markup::of(&called, head) {
        return Err(Error::unsupported(format!("{name} is {}", markup.what)).hint(markup.advice));
    }
    match ending {
        "parquet" | "pq" => return Ok(Format::Parquet),
        _ if head[..head.len().min(TELLING)].contains(&0) => {
            return Err(Error::unsupported(format!("{name} holds NUL bytes, so it is no text in UTF-8"))
                .hint("is it UTF-16 (iconv -f UTF-16LE -t UTF-8 FILE > NEW), or no text at all? format: \"text\" reads it anyway"));
        }
        "json" => return Ok(json_shape(head, whole, false)),
        "jsonl" | "ndjson" | "jsonlines" => return Ok(json_shape(head, whole, true)),
        "csv" => return Ok(Format::Table { delimiter: b',' }),
        "tsv" | "tab" => return Ok(Format::Table { delimiter: b'\t' }),
        "psv" => return Ok(Format::Table { delimiter: b'|' }),
        _ => (),
    }
    if !is_json(head, whole) {
        let inner = called.endings.iter().find_map(|ending| TABLES.iter().find(|(table, _)| table == ending));
        return match inner {
            Some((_, delimiter)) if in_column => Ok(Format::Table { delimiter: *delimiter }),
            Some((table, _)) => {
                let message = format!("load_tokens: {name} has \".{table}\" in its name, but not at its end");
                Err(Error::bad_argument(message).hint(
                    "is it a table? `column` names the column of its texts; format: \"text\" reads it as a plain text",
                ))
            }
            None => Ok(Format::Plain),
        };
    }
    if PLAIN.contains(&ending) {
        let message = format!("load_tokens: {name} has the name of a plain text, and begins like JSON");
        return Err(Error::bad_argument(message)
            .hint("format: \"json\" reads the texts in it; format: \"text\" reads it as it is, with braces and keys"));
    }
    Ok(json_shape(head, whole, true))
}

/// What a file is of which the first bytes, or else the name, are those of a format that holds no text: "a NumPy file".
pub fn known_as(name: &str, head: &[u8]) -> Option<&'static str> {
    let name = Name::of(name);
    let ending = name.ending();
    if head.starts_with(PARQUET) || ending == "parquet" {
        return Some("a Parquet file");
    }
    if Packing::of(head).is_some() {
        return Some("a packed file");
    }
    other_format(head, ending).map(|other| other.what)
}

/// An error where the first bytes, or else the name, are those of a format that is not read.
fn refuse(name: &str, head: &[u8], ending: &str) -> Result<()> {
    let Some(other) = other_format(head, ending) else { return Ok(()) };
    let message = format!("{name} is {}", other.what);
    Err(match other.what.ends_with("pointer") {
        true => Error::not_found(message),
        false => Error::unsupported(message),
    }
    .hint(other.advice))
}

fn other_format(head: &[u8], ending: &str) -> Option<&'static Other> {
    let begins = OTHERS.iter().find(|other| other.begins.iter().any(|magic| head.starts_with(magic)));
    let named = OTHERS.iter().find(|other| other.endings.contains(&ending));
    match begins {
        // The name says what is in it.
        Some(other) if CONTAINERS.contains(&other.what) => named.or(begins),
        Some(_) => begins,
        // The mark of a tar archive stands behind the name of its first file.
        None if head.get(257..262) == Some(b"ustar") => OTHERS.iter().find(|other| other.endings.contains(&"tar")),
        None => named,
    }
}

/// How JSON is laid out; what is no JSON at all is told line by line.
fn json_shape(head: &[u8], whole: bool, lines: bool) -> Format {
    let text = head.trim_ascii_start();
    match text.first() {
        Some(b'[') => Format::JsonArray,
        Some(b'{') => {
            let first = first_value(text);
            let alone = first.end.is_some_and(|end| whole && text[end..].trim_ascii().is_empty());
            let rest = first.end.map(|end| text[end..].trim_ascii_start()).unwrap_or_default();
            let behind = first.end.map(|end| &text[end..text.len() - rest.len()]).unwrap_or_default();
            // Another object on the same line.
            let touching = rest.starts_with(b"{") && !behind.contains(&b'\n');
            // An object that goes on behind the end of its line, or one so long that its line may be all there is.
            let layout = first.lines > 0 || alone || touching || (first.end.is_none() && !lines);
            if layout { Format::JsonValues } else { Format::JsonLines }
        }
        _ => Format::JsonLines,
    }
}

/// Whether a text begins with a JSON object that has keys, or is a JSON array of objects or texts: prose that begins with a
/// bracket is neither.
fn is_json(head: &[u8], whole: bool) -> bool {
    let text = head.trim_ascii_start();
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
        Some(Ok(_)) => match text[values.byte_offset()..].trim_ascii_start().first() {
            None => true,
            Some(b'{') => !array,
            Some(_) => false,
        },
        Some(Err(error)) => error.is_eof() && !whole,
        None => false,
    }
}

/// The error for a column that is not among those of a file: which there are.
pub fn no_column(name: &str, column: &str, columns: &[String]) -> Error {
    /// Columns that a message lists, and characters of a name.
    const LISTED: usize = 12;
    const LONGEST: usize = 40;
    // Names of columns, and not what else a file that is no table may have in their place.
    let is_name = |name: &&str| {
        let usual = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
        !name.is_empty() && name.chars().count() <= LONGEST && name.chars().all(usual)
    };
    let known: Vec<&str> = columns.iter().map(String::as_str).filter(is_name).collect();
    let mut listed: Vec<String> = known.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    if known.len() > LISTED {
        listed.push(format!("{} more", known.len() - LISTED));
    }
    let there = if listed.is_empty() { String::new() } else { format!("; there are {}", listed.join(", ")) };
    let hint = match suggest::nearest(column, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name the column that holds the texts with `column`".to_string(),
    };
    Error::not_found(format!("reading {name}: no column \"{}\"{there}", shown(column))).hint(hint)
}
