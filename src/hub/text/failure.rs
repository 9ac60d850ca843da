//! What can go wrong with the text of a file or of a dataset, with the words for it.

use crate::error::{self, Error};
use crate::hub::foreign;
use crate::outside::shown;

/// What to do about objects as Python prints them.
const PRINTED: &str = "write it with json.dumps(row) in place of str(row); what is there becomes JSON Lines in Python, with ast and json, \
                       by json.dumps(ast.literal_eval(line)) for each line";

/// `name` is that of the file in messages.
#[derive(Debug)]
pub(crate) enum TextFailure {
    PackedParquet {
        name: String,
        packing: &'static str,
    },
    PackedTwice {
        name: String,
        packing: &'static str,
    },
    /// A format that holds no text, or whose texts are not read.
    OtherFormat {
        name: String,
        what: &'static str,
        advice: &'static str,
    },
    NulBytes {
        name: String,
        /// True if they are where UTF-16 has them that begins with the high byte.
        big_endian: bool,
    },
    /// The ending of a table is within the name.
    InnerEnding {
        name: String,
        ending: String,
    },
    LooksLikeTable {
        name: String,
    },
    LooksLikeJson {
        name: String,
    },
    SeveralArrays {
        name: String,
    },
    /// Objects as Python prints them.
    OfPython {
        name: String,
        /// True if the user has named JSON as the format.
        as_json: bool,
    },
    /// An option that does not apply to the format.
    Inapplicable {
        option: &'static str,
        goes_with: &'static str,
        name: String,
        format: &'static str,
        hint: &'static str,
    },

    ColumnTwice {
        name: String,
        column: String,
    },
    NoColumn {
        name: String,
        column: String,
        /// The columns that there are, in words.
        there: String,
        hint: String,
    },
    /// A value, a row or a line that cannot be read.
    BadRecord {
        name: String,
        place: String,
        problem: String,
        hint: Option<&'static str>,
    },
    /// Longer than `most` bytes.
    LongValue {
        name: String,
        most: usize,
    },
    LongDocument {
        name: String,
        most: usize,
    },

    LargeRowGroup {
        name: String,
        bytes: u64,
    },
    LargeRange {
        name: String,
        bytes: u64,
    },
    NoUtf8 {
        name: String,
    },
    NoTextColumn {
        name: String,
        column: String,
        holds: String,
        /// Names of columns of strings.
        texts: Vec<String>,
    },
    DamagedParquet {
        name: String,
        problem: String,
    },
    OtherCompression {
        name: String,
        problem: String,
    },

    TooManyToShuffle {
        name: String,
        most: usize,
    },
    TooLargeToShuffle {
        name: String,
        most: u64,
    },
    RowGroupTooLargeToShuffle {
        name: String,
    },

    BehindGzip {
        name: String,
    },
    CutOff {
        name: String,
        packing: &'static str,
    },
    LargeWindow {
        name: String,
        most_mb: u64,
    },
    DamagedPacking {
        name: String,
        packing: &'static str,
    },
}

impl error::Failure for TextFailure {
    fn told(&self) -> Error {
        let other = |message: String| Error::unsupported(message);
        let damaged = |message: String| Error::corrupt(message);
        match self {
            Self::PackedParquet { name, packing } => other(format!("{name} is Parquet packed with {packing}"))
                .hint("unpack it first: of a Parquet file only the parts that are needed are read"),
            Self::PackedTwice { name, packing } => {
                other(format!("{name} is packed twice, outside with {packing}")).hint(foreign::UNPACK)
            }
            Self::OtherFormat { name, what, advice } => other(format!("{name} is {what}")).hint(*advice),
            Self::NulBytes { name, big_endian } => {
                let encoding = if *big_endian { "UTF-16BE" } else { "UTF-16LE" };
                other(format!("{name} holds NUL bytes, so it is no text in UTF-8")).hint(format!(
                    "is it UTF-16 (iconv -f {encoding} -t UTF-8 FILE > NEW)? token ids go under `ids`, as safetensors or JSON; \
                     format: \"text\" reads it anyway"
                ))
            }
            Self::InnerEnding { name, ending } => Error::bad_argument(format!(
                "load_tokens: {name} has \".{ending}\" in its name, but not at its end"
            ))
            .hint("is it a table? `column` names the column of its texts; format: \"text\" reads it as a plain text"),
            Self::LooksLikeTable { name } => Error::bad_argument(format!("load_tokens: {name} looks like a table"))
                .hint("`column` names the column of its texts; format: \"text\" reads it as a plain text"),
            Self::LooksLikeJson { name } => Error::bad_argument(format!(
                "load_tokens: {name} has the name of a plain text, and begins like JSON"
            ))
            .hint("format: \"json\" reads the texts in it; format: \"text\" reads it as it is, with braces and keys"),
            Self::SeveralArrays { name } => other(format!(
                "{name} has several arrays in it, one after another, and no keys"
            ))
            .hint(
                "the texts of arrays have no names: write an object on each line, with the place of its text from 0 on: jq -c '{text: \
                 .[0]}' FILE > NEW.jsonl",
            ),
            Self::OfPython { name, as_json } => {
                let error =
                    other(format!("{name} has objects as Python prints them ({{'text': '…'}}), which are no JSON"));
                match as_json {
                    true => error.hint(PRINTED),
                    false => error.hint(format!("{PRINTED}; format: \"text\" reads it as it is")),
                }
            }
            Self::Inapplicable { option, goes_with, name, format, hint } => {
                let message = format!("load_tokens: `{option}` goes with {goes_with}; {name} is {format}");
                Error::bad_argument(message).hint(*hint)
            }
            Self::ColumnTwice { name, column } => {
                damaged(format!("reading {name}: more than one column is called \"{}\"", shown(column)))
            }
            Self::NoColumn { name, column, there, hint } => {
                Error::not_found(format!("reading {name}: no column \"{}\"{there}", shown(column))).hint(hint)
            }
            Self::BadRecord { name, place, problem, hint } => {
                let error = damaged(format!("reading {name}, {place}: {problem}"));
                match hint {
                    Some(hint) => error.hint(*hint),
                    None => error,
                }
            }
            Self::LongValue { name, most } => damaged(format!("reading {name}: a value of more than {most} bytes"))
                .hint("write one object per line: jq -c '.[]' FILE > NEW.jsonl, with the key of the list before []"),
            Self::LongDocument { name, most } => {
                damaged(format!("reading {name}: a document of more than {most} bytes"))
                    .hint("is the separator the right one? JSON Lines have one object per line")
            }
            Self::LargeRowGroup { name, bytes } => other(format!("reading {name}: a row group of {bytes} bytes"))
                .hint("write the file with smaller row groups"),
            Self::LargeRange { name, bytes } => other(format!("reading {name}: {bytes} bytes of it in one piece"))
                .hint("files whose rows are in smaller groups can be read"),
            Self::NoUtf8 { name } => other(format!("reading {name}: the column holds bytes that are no text in UTF-8"))
                .hint("name a column of strings with `column`"),
            Self::NoTextColumn { name, column, holds, texts } => {
                let message = format!("reading {name}: column \"{}\" holds {holds}, not text", shown(column));
                let columns: Vec<String> = texts.iter().map(|name| format!("`{}`", shown(name))).collect();
                other(message).hint(match (columns.is_empty(), holds.as_str()) {
                    (true, "lists") => "write a column in which each row is one string".to_string(),
                    (true, _) => "the file has no column of strings; write one".to_string(),
                    (false, _) => format!("name a column of strings with `column`: {}", columns.join(", ")),
                })
            }
            Self::DamagedParquet { name, problem } => {
                damaged(format!("reading {name}: {problem}")).hint("the file is damaged or incomplete; download it again")
            }
            Self::OtherCompression { name, problem } => other(format!("reading {name}: {problem}"))
                .hint("write the file with another compression: gzip, brotli, lz4, snappy, zstd and none are read"),
            Self::TooManyToShuffle { name, most } => {
                other(format!("reading {name}: more than {most} documents, too many to be shuffled"))
                    .hint("cut the file into several, or store it as Parquet")
            }
            Self::TooLargeToShuffle { name, most } => {
                other(format!("reading {name}: more than {most} bytes of texts to shuffle"))
                    .hint("cut the file into several, store it as Parquet, or leave `shuffle` out")
            }
            Self::RowGroupTooLargeToShuffle { name } => {
                other(format!("reading {name}: a row group is too large to be shuffled"))
                    .hint("write the file with smaller row groups, or leave `shuffle` out")
            }
            Self::BehindGzip { name } => {
                damaged(format!("reading {name}: behind its gzip data are bytes that are none")).hint(
                    "was something appended? gzip -dc FILE > NEW unpacks what is in front of them, and leaves them out",
                )
            }
            Self::CutOff { name, packing } => {
                damaged(format!("reading {name}: it ends in the middle of its {packing} data"))
                    .hint("the download or the packing was cut off: fetch or pack it again")
            }
            Self::LargeWindow { name, most_mb } => {
                other(format!("reading {name}: unpacking it takes a window of more than {most_mb} MB"))
                    .hint("unpack it first (zstd -d --long=31), or pack it without --long and --ultra")
            }
            Self::DamagedPacking { name, packing } => damaged(format!("reading {name}: its {packing} data are damaged"))
                .hint(format!("see whether {packing} -t takes it; else fetch or pack it again")),
        }
    }
}
